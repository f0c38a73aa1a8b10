//! The peer on tokio-tungstenite: one thread, a task per connection, sinks found by name. See `bench/peers/README.md`.
#![forbid(unsafe_code)]

use std::cell::RefCell;
use std::collections::HashMap;
use std::io::{self, Write};
use std::rc::Rc;

use dispatchd::say;
use futures_util::stream::SplitSink;
use futures_util::{SinkExt, StreamExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Mutex;
use tokio_tungstenite::WebSocketStream;
use tokio_tungstenite::tungstenite::Message;
use tokio_tungstenite::tungstenite::handshake::server::{ErrorResponse, Request, Response};
use tokio_tungstenite::tungstenite::http::HeaderValue;
use tokio_tungstenite::tungstenite::protocol::WebSocketConfig;

use super::dialect::PUSH_BYTES;
use crate::ws::SUBPROTOCOL;

/// Connections that have not been accepted yet, at most.
const BACKLOG: u32 = 4096;
/// Bytes of a connection's read buffer with `--small-buffers`: several of the exchange's messages.
const READ_BUFFER_BYTES: usize = 512;
/// Where a driver's name begins in the path.
const PATH_PREFIX: &str = "/ws/driver/";

/// What the peer does.
#[derive(Debug, Clone, clap::Args)]
pub struct Options {
    /// Buffers of a few hundred bytes instead of the library's defaults
    #[arg(long)]
    pub small_buffers: bool,
}

type Sink = Rc<Mutex<SplitSink<WebSocketStream<TcpStream>, Message>>>;
type Drivers = Rc<RefCell<HashMap<String, Sink>>>;

/// Serves until the process is killed. Prints its address first.
///
/// # Errors
/// A socket's.
pub fn run(options: &Options) -> io::Result<()> {
    let mut config = WebSocketConfig::default();
    if options.small_buffers {
        config = config
            .read_buffer_size(READ_BUFFER_BYTES)
            .write_buffer_size(0)
            .max_write_buffer_size(64 << 10);
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_io().build()?;
    tokio::task::LocalSet::new().block_on(&runtime, accept(config))
}

async fn accept(config: WebSocketConfig) -> io::Result<()> {
    let socket = tokio::net::TcpSocket::new_v4()?;
    socket.bind(([127, 0, 0, 1], 0).into())?;
    let listener: TcpListener = socket.listen(BACKLOG)?;
    say!("{}", listener.local_addr()?);
    io::stdout().flush()?;
    let drivers = Drivers::default();
    let push = Message::text("x".repeat(PUSH_BYTES));
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        tokio::task::spawn_local(serve(stream, config, Rc::clone(&drivers), push.clone()));
    }
}

/// Serves one connection to its end.
async fn serve(stream: TcpStream, config: WebSocketConfig, drivers: Drivers, push: Message) {
    let mut name = String::new();
    // The signature is the library's.
    #[allow(clippy::result_large_err)]
    let upgrade = |request: &Request, mut response: Response| -> Result<Response, ErrorResponse> {
        request
            .uri()
            .path()
            .trim_start_matches(PATH_PREFIX)
            .clone_into(&mut name);
        let protocol = HeaderValue::from_static(SUBPROTOCOL);
        response.headers_mut().insert("sec-websocket-protocol", protocol);
        Ok(response)
    };
    let Ok(socket) = tokio_tungstenite::accept_hdr_async_with_config(stream, upgrade, Some(config)).await else {
        return;
    };
    let (sink, mut messages) = socket.split();
    let sink: Sink = Rc::new(Mutex::new(sink));
    drivers.borrow_mut().insert(name.clone(), Rc::clone(&sink));
    while let Some(Ok(message)) = messages.next().await {
        if let Message::Text(other) = message {
            let found = drivers.borrow().get(other.as_str()).cloned();
            if let Some(found) = found {
                // An error ends the other connection, whose own task hears of it.
                let _ = found.lock().await.send(push.clone()).await;
            }
        }
    }
    let mut drivers = drivers.borrow_mut();
    if drivers.get(&name).is_some_and(|current| Rc::ptr_eq(current, &sink)) {
        drivers.remove(&name);
    }
}
