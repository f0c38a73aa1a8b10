//! A bare socket, for clients that are broken on purpose and for bytes that no library would send.

use super::{Value, within};
use std::net::SocketAddr;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

const READ_BYTES: usize = 64 << 10;

/// An HTTP answer as it came over a bare socket.
#[derive(Debug)]
pub struct RawAnswer {
    /// Status code.
    pub status: u16,
    /// Header fields, names in lower case.
    pub headers: Vec<(String, String)>,
    /// The body.
    pub body: String,
}

impl RawAnswer {
    /// A header field's value, if it is there.
    pub fn header(&self, name: &str) -> Option<&str> {
        let found = self.headers.iter().find(|(key, _)| key == name);
        found.map(|(_, value)| value.as_str())
    }

    /// The `code` of a problem document.
    ///
    /// # Panics
    /// When the body is none.
    #[track_caller]
    pub fn code(&self) -> String {
        let body: Value = serde_json::from_str(&self.body).unwrap_or_else(|error| panic!("{error}: {self:?}"));
        super::text(&body, "code").to_owned()
    }
}

/// A bare connection.
#[derive(Debug)]
pub struct Raw {
    stream: TcpStream,
    /// Bytes that came and were not taken yet.
    received: Vec<u8>,
}

impl Raw {
    /// Connects.
    ///
    /// # Panics
    /// When nobody listens.
    pub async fn connect(address: SocketAddr) -> Self {
        let stream = within("a connection", TcpStream::connect(address)).await;
        let stream = stream.expect("a connection");
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self::over(stream)
    }

    /// Takes over a connection.
    pub fn over(stream: TcpStream) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends bytes as they are.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        let sent = within("room for bytes", self.stream.write_all(bytes.as_ref())).await;
        sent.expect("an open connection");
    }

    /// Waits until the server has cut the connection with a reset; reads nothing meanwhile.
    pub async fn expect_reset(&mut self) {
        let reset = within("a reset", self.stream.ready(tokio::io::Interest::ERROR)).await;
        assert!(reset.expect("the state of a connection").is_error());
    }

    /// Sends bytes to a server that may have cut the connection already; whether it had room for all of them.
    pub async fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        let sent = within("room for bytes", self.stream.write_all(bytes.as_ref())).await;
        sent.is_ok()
    }

    /// Closes the sending half.
    ///
    /// # Panics
    /// When the connection is broken.
    pub async fn half_close(&mut self) {
        self.stream.shutdown().await.expect("an open connection");
    }

    /// Cuts the connection with a reset, as a process that is gone does: the server learns that nobody reads its answers.
    ///
    /// # Panics
    /// When the socket does not allow it.
    pub fn reset(self) {
        let socket = socket2::SockRef::from(&self.stream);
        socket.set_linger(Some(std::time::Duration::ZERO)).expect("SO_LINGER");
    }

    /// Reads more; false at the end of the stream or when the server cut it.
    async fn read_more(&mut self) -> bool {
        let mut buffer = vec![0; READ_BYTES];
        let read = within("bytes from the server", self.stream.read(&mut buffer)).await;
        let count = read.unwrap_or(0);
        self.received.extend_from_slice(&buffer[..count]);
        count > 0
    }

    /// Takes exactly so many bytes; `None` when the stream ends before.
    pub async fn take(&mut self, count: usize) -> Option<Vec<u8>> {
        while self.received.len() < count {
            if !self.read_more().await {
                return None;
            }
        }
        let rest = self.received.split_off(count);
        Some(std::mem::replace(&mut self.received, rest))
    }

    /// The next HTTP answer; `None` when the stream ends instead.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn answer(&mut self) -> Option<RawAnswer> {
        let (status, headers) = self.head().await?;
        let mut answer = RawAnswer {
            status,
            headers,
            body: String::new(),
        };
        let body = if answer.header("transfer-encoding").is_some() {
            self.chunks().await?
        } else if let Some(length) = answer.header("content-length") {
            let length = length.parse().expect("a length in bytes");
            self.take(length).await?
        } else if status < 200 || status == 204 || status == 304 {
            Vec::new()
        } else {
            self.rest().await
        };
        answer.body = String::from_utf8(body).expect("UTF-8");
        Some(answer)
    }

    /// The next HTTP answer as one to `HEAD`: without content, whatever its length says. `None` when the stream ends instead.
    ///
    /// # Panics
    /// When something else comes.
    pub async fn answer_without_body(&mut self) -> Option<RawAnswer> {
        let (status, headers) = self.head().await?;
        Some(RawAnswer {
            status,
            headers,
            body: String::new(),
        })
    }

    /// The next HTTP answer.
    ///
    /// # Panics
    /// When there is none.
    pub async fn expect_answer(&mut self) -> RawAnswer {
        self.answer().await.expect("an answer before the end of the stream")
    }

    async fn head(&mut self) -> Option<(u16, Vec<(String, String)>)> {
        loop {
            let mut fields = [httparse::EMPTY_HEADER; 64];
            let mut response = httparse::Response::new(&mut fields);
            let parsed = response.parse(&self.received);
            match parsed.unwrap_or_else(|error| panic!("{error}: {:?}", String::from_utf8_lossy(&self.received))) {
                httparse::Status::Complete(length) => {
                    let status = response.code.expect("a status");
                    let headers = response.headers.iter().map(|field| {
                        let value = String::from_utf8_lossy(field.value).into_owned();
                        (field.name.to_ascii_lowercase(), value)
                    });
                    let headers = headers.collect();
                    self.received.drain(..length);
                    return Some((status, headers));
                }
                httparse::Status::Partial => {
                    if !self.read_more().await {
                        assert!(
                            self.received.is_empty(),
                            "the stream ended inside an answer's head: {:?}",
                            String::from_utf8_lossy(&self.received)
                        );
                        return None;
                    }
                }
            }
        }
    }

    async fn chunks(&mut self) -> Option<Vec<u8>> {
        let mut body = Vec::new();
        loop {
            let size = self.line().await?;
            let size = size.split(';').next().unwrap_or_default().trim();
            let size = usize::from_str_radix(size, 16).expect("a chunk size in hex");
            body.extend(self.take(size).await?);
            let end = self.line().await?;
            assert!(end.is_empty(), "trailers are none of the contract: {end:?}");
            if size == 0 {
                return Some(body);
            }
        }
    }

    async fn line(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") {
                let line = self.take(end + 2).await?;
                return Some(String::from_utf8_lossy(&line[..end]).into_owned());
            }
            if !self.read_more().await {
                return None;
            }
        }
    }

    /// Everything until the server ends the connection.
    pub async fn rest(&mut self) -> Vec<u8> {
        while self.read_more().await {}
        std::mem::take(&mut self.received)
    }

    /// Shows that the server ends the connection and says nothing more.
    ///
    /// # Panics
    /// When something comes, or the connection stays open.
    pub async fn expect_end(&mut self) {
        let rest = self.rest().await;
        assert!(rest.is_empty(), "more came: {:?}", String::from_utf8_lossy(&rest));
    }

    /// A WebSocket on this connection: the handshake done by hand, for frames that no library would send.
    ///
    /// # Panics
    /// When the node does not switch protocols.
    pub async fn websocket(address: SocketAddr, driver_id: &str) -> Self {
        let mut raw = Self::connect(address).await;
        raw.send(upgrade(driver_id)).await;
        let answer = raw.expect_answer().await;
        assert_eq!(answer.status, 101, "{answer:?}");
        raw
    }

    /// The next frame from the server: opcode and payload. `None` at the end of the stream.
    ///
    /// # Panics
    /// When the server masks a frame or sets a reserved bit.
    pub async fn frame(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = self.take(2).await?;
        assert_eq!(head[0] & 0x70, 0, "reserved bits: no extension was negotiated");
        assert_eq!(head[1] & 0x80, 0, "a server never masks");
        let length = match head[1] & 0x7f {
            126 => {
                let bytes = self.take(2).await?;
                usize::from(u16::from_be_bytes([bytes[0], bytes[1]]))
            }
            127 => panic!("a frame over 64 KiB"),
            short => usize::from(short),
        };
        assert!(length <= 16 << 10, "a frame over 16 KiB");
        let payload = self.take(length).await?;
        Some((head[0] & 0x0f, payload))
    }

    /// The code of the close frame that the server sends, text frames before it skipped.
    ///
    /// # Panics
    /// When the stream ends without one.
    pub async fn close_code(&mut self) -> u16 {
        while let Some((opcode, payload)) = self.frame().await {
            if opcode == 0x8 {
                return match payload.as_slice() {
                    [high, low, ..] => u16::from_be_bytes([*high, *low]),
                    _ => 1005,
                };
            }
        }
        panic!("the stream ended without a close frame");
    }
}

/// A correct handshake for a driver, as bytes. The key is the one of RFC 6455 §1.3.
pub fn upgrade(driver_id: &str) -> String {
    format!(
        "GET /ws/driver/{driver_id} HTTP/1.1\r\nHost: node\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
         Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n\
         Sec-WebSocket-Protocol: dispatch.v1\r\n\r\n"
    )
}

/// A frame as a client sends it: `first` is the byte with FIN, reserved bits and opcode.
///
/// # Panics
/// When the payload is longer than a 16-bit length holds.
pub fn client_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    const MASK: [u8; 4] = [0x37, 0xfa, 0x21, 0x3d];
    let mut frame = frame_head(first, payload.len(), 0x80);
    frame.extend(MASK);
    let masked = payload.iter().zip(MASK.iter().cycle());
    frame.extend(masked.map(|(byte, mask)| byte ^ mask));
    frame
}

/// A frame without a mask, which no client may send.
///
/// # Panics
/// When the payload is longer than a 16-bit length holds.
pub fn unmasked_frame(first: u8, payload: &[u8]) -> Vec<u8> {
    let mut frame = frame_head(first, payload.len(), 0);
    frame.extend(payload);
    frame
}

fn frame_head(first: u8, length: usize, mask_bit: u8) -> Vec<u8> {
    /// Says that 16 bits of length follow (RFC 6455 §5.2).
    const LENGTH_16: u8 = 126;
    let length = u16::try_from(length).expect("a 16-bit length");
    let [high, low] = length.to_be_bytes();
    if length < u16::from(LENGTH_16) {
        vec![first, mask_bit + low]
    } else {
        vec![first, mask_bit + LENGTH_16, high, low]
    }
}
