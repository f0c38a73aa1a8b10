//! A server that speaks just enough of the contract for the scenarios: no state machine, no disk, a thread per connection.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpListener, TcpStream};
use std::sync::{Arc, Mutex};

use dispatchd_bench::server::{Target, ipv4};
use serde_json::{Value, json};
use tungstenite::Message;
use tungstenite::handshake::server::{Request, Response};
use tungstenite::http::HeaderValue;

/// How the server misbehaves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As the contract says.
    Good,
    /// Every `CONFIRMED` is sent twice.
    ConfirmsTwice,
    /// Every second POST is answered with 429 and does nothing.
    Overloaded,
}

/// Drivers' sockets by id, and the candidates that a request has left.
#[derive(Default)]
struct World {
    drivers: HashMap<String, TcpStream>,
    candidates: HashMap<String, Vec<String>>,
    posts: u64,
}

impl World {
    fn say(&self, driver: &str, message: &Value) {
        let text = message.to_string();
        let mut frame = match text.len() {
            short @ 0..=125 => vec![0x81, short as u8],
            long => vec![0x81, 126, (long >> 8) as u8, long as u8],
        };
        frame.extend_from_slice(text.as_bytes());
        // A driver that has gone hears nothing.
        if let Some(mut socket) = self.drivers.get(driver) {
            let _ = socket.write_all(&frame);
        }
    }

    fn offer(&self, request: &str, attempt: usize) {
        // The last candidate's decline ends the search.
        let Some(driver) = self.candidates[request].get(attempt - 1) else {
            return;
        };
        let trip = json!({ "type": "not a message", "zone": 161 });
        self.say(
            driver,
            &json!({
                "type": "OFFER", "request_id": request, "attempt": attempt, "priority": "standard",
                "expires_at_ms": 1, "ttl_ms": 1, "trip": trip,
            }),
        );
    }
}

/// Starts a server whose threads end with the test's process.
pub fn start(manner: Manner) -> Target {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
    let address = ipv4(listener.local_addr().unwrap()).unwrap();
    let world = Arc::new(Mutex::new(World::default()));
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let world = Arc::clone(&world);
            std::thread::spawn(move || serve(stream.unwrap(), &world, manner));
        }
    });
    Target {
        address,
        pid: std::process::id(),
    }
}

fn serve(stream: TcpStream, world: &Mutex<World>, manner: Manner) {
    stream.set_nodelay(true).unwrap();
    let mut start = [0; 8];
    match stream.peek(&mut start) {
        Ok(8) if start.starts_with(b"GET /ws/") => serve_driver(stream, world, manner),
        _ => serve_http(stream, world, manner),
    }
}

fn serve_driver(stream: TcpStream, world: &Mutex<World>, manner: Manner) {
    let mut driver = String::new();
    // The error's size is the library's choice.
    #[allow(clippy::result_large_err)]
    let upgrade = |request: &Request, mut response: Response| {
        driver.push_str(request.uri().path().trim_start_matches("/ws/driver/"));
        response
            .headers_mut()
            .insert("Sec-WebSocket-Protocol", HeaderValue::from_static("dispatch.v1"));
        Ok(response)
    };
    let writer = stream.try_clone().unwrap();
    let Ok(mut socket) = tungstenite::accept_hdr(stream, upgrade) else {
        return;
    };
    {
        let mut world = world.lock().unwrap();
        world.drivers.insert(driver.clone(), writer);
        let welcome = json!({
            "type": "WELCOME", "driver_id": driver, "session": 1, "state": "available",
            "heartbeat_ms": 30_000, "server_time_ms": 1,
        });
        world.say(&driver, &welcome);
    }
    while let Ok(message) = socket.read() {
        if let Message::Text(text) = message {
            let message: Value = serde_json::from_str(&text).unwrap();
            driver_message(&world.lock().unwrap(), &driver, &message, manner);
        }
    }
    // The world holds another handle of the socket; the connection ends only so.
    let _ = socket.get_ref().shutdown(std::net::Shutdown::Both);
}

fn driver_message(world: &World, driver: &str, message: &Value, manner: Manner) {
    let state = |state: &str| world.say(driver, &json!({ "type": "STATE", "state": state }));
    let request = message["request_id"].as_str().unwrap_or_default();
    let attempt = message["attempt"].as_u64().unwrap_or_default() as usize;
    match (message["type"].as_str().unwrap(), message["event"].as_str()) {
        ("PING", _) => world.say(driver, &json!({ "type": "PONG", "server_time_ms": 1 })),
        ("ACCEPT", _) => {
            let trip = format!("trip-{request}");
            let confirmed = json!({ "type": "CONFIRMED", "request_id": request, "attempt": attempt, "trip_id": trip });
            world.say(driver, &confirmed);
            if manner == Manner::ConfirmsTwice {
                world.say(driver, &confirmed);
            }
            state("en_route_to_pickup");
        }
        ("DECLINE", _) => {
            world.say(
                driver,
                &json!({ "type": "DECLINED", "request_id": request, "attempt": attempt }),
            );
            world.offer(request, attempt + 1);
        }
        ("TRIP", Some("pickup")) => state("on_trip"),
        ("TRIP", Some("complete")) => state("available"),
        _ => {}
    }
}

fn serve_http(mut stream: TcpStream, world: &Mutex<World>, manner: Manner) {
    let mut bytes = Vec::new();
    let mut buffer = [0; 4096];
    loop {
        let mut headers = [httparse::EMPTY_HEADER; 16];
        let mut request = httparse::Request::new(&mut headers);
        if let Ok(httparse::Status::Complete(head)) = request.parse(&bytes) {
            let length = request
                .headers
                .iter()
                .find(|h| h.name == "Content-Length")
                .map_or(0, |header| {
                    std::str::from_utf8(header.value).unwrap().parse::<usize>().unwrap()
                });
            let close = request.headers.iter().any(|header| header.name == "Connection");
            if bytes.len() >= head + length {
                let (status, answer) = respond(request.path.unwrap(), &bytes[head..head + length], world, manner);
                let head_out = format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n", answer.len());
                if stream.write_all((head_out + &answer).as_bytes()).is_err() || close {
                    return;
                }
                bytes.drain(..head + length);
                continue;
            }
        }
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => return,
            Ok(count) => bytes.extend_from_slice(&buffer[..count]),
        }
    }
}

fn respond(path: &str, body: &[u8], world: &Mutex<World>, manner: Manner) -> (&'static str, String) {
    let mut world = world.lock().unwrap();
    match path {
        "/v1/dispatch/offer" => {
            world.posts += 1;
            if manner == Manner::Overloaded && world.posts.is_multiple_of(2) {
                return ("429 Too Many Requests", "{}".into());
            }
            let body: Value = serde_json::from_slice(body).unwrap();
            let request = body["request_id"].as_str().unwrap().to_owned();
            let candidates = body["candidates"].as_array().unwrap();
            let candidates = candidates
                .iter()
                .map(|driver| driver.as_str().unwrap().to_owned())
                .collect();
            world.candidates.insert(request.clone(), candidates);
            world.offer(&request, 1);
            let driver = &world.candidates[&request][0];
            let answer = json!({
                "request_id": request, "state": "OFFER_SENT", "attempt": 1, "driver_id": driver, "duplicate": false,
            });
            ("202 Accepted", answer.to_string())
        }
        "/metrics" => (
            "200 OK",
            format!("dispatchd_allocated_bytes {}\n", 1000 + 200 * world.drivers.len()),
        ),
        _ => ("200 OK", "{}".into()),
    }
}
