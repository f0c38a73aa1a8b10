//! WebSocket frames: a torture list, agreement with tungstenite's own decoder, and frames out.

mod agreement;
mod frames;
mod torture;
