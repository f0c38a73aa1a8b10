//! The file of `dispatchd records export` and `import`: dispatch records and ended requests of one node.
//!
//! | bytes | what |
//! |---|---|
//! | 14 | `dispatchd-recs` |
//! | 2 | version of the format, 1 |
//! | then frames | kind (1), length of the payload (4), CRC32C of kind, length and payload (4), payload |
//!
//! Numbers are big-endian. Kinds, in this order: one `1` (JSON: `node_id`, `created_at_ms`), any number of `2` (a dispatch
//! record) and `3` (an ended request), both rkyv as in the embedded store, and one `4` (JSON: how many `records` and
//! `requests`), with which the file ends. A file that was cut, or whose bits turned, is refused, never read in part:
//! [`Reader`] says so at the end, so a file is checked whole before anything is done with it.

use super::embedded::{Decoder, Encoder};
use super::port::{EndedRequest, StoreError};
use crate::fsm::types::{RecordRow, UnixMs};
use serde::{Deserialize, Serialize};
use std::io::{Read, Write};

/// Version of the format.
pub const VERSION: u16 = 1;
const MAGIC: &[u8; 14] = b"dispatchd-recs";
/// Longest payload: far above the longest log.
const PAYLOAD_BYTES_MAX: u32 = 256 << 20;

const HEAD: u8 = 1;
const RECORD: u8 = 2;
const REQUEST: u8 = 3;
const END: u8 = 4;

/// What a file begins with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Head {
    /// The node whose data it is.
    pub node_id: String,
    /// When it was written.
    pub created_at_ms: UnixMs,
}

/// What a file holds.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counts {
    /// Dispatch records.
    pub records: u64,
    /// Ended requests.
    pub requests: u64,
}

/// One of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Item {
    /// A dispatch record.
    Record(RecordRow),
    /// An ended request.
    Request(Box<EndedRequest>),
}

fn failed(error: impl std::fmt::Display) -> StoreError {
    StoreError::unavailable(format!("the file: {error}"))
}

/// Writes a file.
pub struct Writer<W> {
    out: W,
    encoder: Encoder,
    counts: Counts,
}

impl<W: Write> Writer<W> {
    /// Begins a file.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn begin(mut out: W, head: &Head) -> Result<Self, StoreError> {
        out.write_all(MAGIC).map_err(failed)?;
        out.write_all(&VERSION.to_be_bytes()).map_err(failed)?;
        frame(&mut out, HEAD, &serde_json::to_vec(head).map_err(failed)?)?;
        Ok(Self {
            out,
            encoder: Encoder::default(),
            counts: Counts::default(),
        })
    }

    /// Adds one.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn push(&mut self, item: &Item) -> Result<(), StoreError> {
        match item {
            Item::Record(row) => {
                self.counts.records += 1;
                frame(&mut self.out, RECORD, self.encoder.encode(row)?)
            }
            Item::Request(ended) => {
                self.counts.requests += 1;
                frame(&mut self.out, REQUEST, self.encoder.encode(&**ended)?)
            }
        }
    }

    /// Ends the file, and gives it back with what it holds.
    ///
    /// # Errors
    /// It cannot be written.
    pub fn finish(mut self) -> Result<(W, Counts), StoreError> {
        frame(&mut self.out, END, &serde_json::to_vec(&self.counts).map_err(failed)?)?;
        self.out.flush().map_err(failed)?;
        Ok((self.out, self.counts))
    }
}

fn frame(out: &mut impl Write, kind: u8, payload: &[u8]) -> Result<(), StoreError> {
    let length = u32::try_from(payload.len())
        .ok()
        .filter(|length| *length <= PAYLOAD_BYTES_MAX);
    let length = length.ok_or_else(|| StoreError::broken("a request is too long for the file"))?;
    let head = start_of(kind, length);
    out.write_all(&head).map_err(failed)?;
    out.write_all(&crc32c::crc32c_append(crc32c::crc32c(&head), payload).to_be_bytes())
        .map_err(failed)?;
    out.write_all(payload).map_err(failed)
}

fn start_of(kind: u8, length: u32) -> [u8; 5] {
    let mut head = [kind; 5];
    head[1..].copy_from_slice(&length.to_be_bytes());
    head
}

/// Reads a file.
pub struct Reader<R> {
    input: R,
    decoder: Decoder,
    /// Where the next frame begins.
    at: u64,
    payload: Vec<u8>,
    counts: Counts,
    is_over: bool,
}

impl<R: Read> Reader<R> {
    /// Reads the beginning.
    ///
    /// # Errors
    /// It is no such file, or a newer program's.
    pub fn begin(mut input: R) -> Result<(Self, Head), StoreError> {
        let mut start = [0; 16];
        input.read_exact(&mut start).map_err(failed)?;
        if !start.starts_with(MAGIC) {
            return Err(StoreError::invalid("this is no file of `dispatchd records export`"));
        }
        let version = u16::from_be_bytes([start[14], start[15]]);
        if version != VERSION {
            return Err(StoreError::invalid(format!(
                "the file has format {version}, this program reads format {VERSION}"
            )));
        }
        let mut reader = Self {
            input,
            decoder: Decoder::default(),
            at: start.len() as u64,
            payload: Vec::new(),
            counts: Counts::default(),
            is_over: false,
        };
        if reader.frame()? != HEAD {
            return Err(reader.damaged("the head is missing"));
        }
        let head = serde_json::from_slice(&reader.payload).map_err(|error| reader.damaged(&error.to_string()))?;
        Ok((reader, head))
    }

    /// The next one; `None`: the file is over, and was whole.
    ///
    /// # Errors
    /// It is damaged or cut.
    pub fn read(&mut self) -> Result<Option<Item>, StoreError> {
        if self.is_over {
            return Ok(None);
        }
        match self.frame()? {
            RECORD => {
                self.counts.records += 1;
                self.decoder.record(&self.payload).map(|row| Some(Item::Record(row)))
            }
            REQUEST => {
                self.counts.requests += 1;
                let ended = self.decoder.ended(&self.payload)?;
                Ok(Some(Item::Request(Box::new(ended))))
            }
            END => {
                let counts: Counts =
                    serde_json::from_slice(&self.payload).map_err(|error| self.damaged(&error.to_string()))?;
                if counts != self.counts || self.input.read(&mut [0]).map_err(failed)? != 0 {
                    return Err(self.damaged("the end does not fit what comes before or after it"));
                }
                self.is_over = true;
                Ok(None)
            }
            _ => Err(self.damaged("the kind is unknown")),
        }
    }

    /// What was read so far.
    pub const fn counts(&self) -> Counts {
        self.counts
    }

    /// Reads a frame and gives its kind.
    fn frame(&mut self) -> Result<u8, StoreError> {
        let mut start = [0; 9];
        self.input.read_exact(&mut start).map_err(|error| self.cut(&error))?;
        let length = u32::from_be_bytes([start[1], start[2], start[3], start[4]]);
        if length > PAYLOAD_BYTES_MAX {
            return Err(self.damaged("the length cannot be"));
        }
        self.payload.clear();
        let read = self.input.by_ref().take(length.into()).read_to_end(&mut self.payload);
        if read.map_err(|error| self.cut(&error))? != length as usize {
            return Err(self.damaged("the file ends in it"));
        }
        let sum = crc32c::crc32c_append(crc32c::crc32c(&start[..5]), &self.payload);
        if sum.to_be_bytes() != start[5..] {
            return Err(self.damaged("the checksum is wrong"));
        }
        self.at += 9 + u64::from(length);
        Ok(start[0])
    }

    fn cut(&self, error: &std::io::Error) -> StoreError {
        match error.kind() {
            std::io::ErrorKind::UnexpectedEof => self.damaged("the file ends before its end"),
            _ => failed(error),
        }
    }

    fn damaged(&self, what: &str) -> StoreError {
        StoreError::broken(format!("the file is damaged at byte {}: {what}", self.at))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fsm::ids::{DriverId, RequestId};
    use crate::fsm::types::{LogEntry, RequestLog, ResponseType, Step};

    fn items() -> Vec<Item> {
        let request_id = RequestId::parse("r-1").unwrap();
        let row = RecordRow {
            driver_id: DriverId::parse("d").unwrap(),
            offer_sent_at_ms: 5,
            request_id: request_id.clone(),
            attempt: 1,
            trip_id: None,
            response_type: ResponseType::Declined,
            response_at_ms: 6,
        };
        let log = vec![LogEntry {
            at_ms: 7,
            step: Step::Exhausted,
        }];
        let ended = EndedRequest {
            log: RequestLog { request_id, log },
            trip_id: None,
            ended_at_ms: 7,
        };
        vec![Item::Record(row), Item::Request(Box::new(ended))]
    }

    fn head() -> Head {
        Head {
            node_id: "n1".to_owned(),
            created_at_ms: 9,
        }
    }

    fn written() -> Vec<u8> {
        let mut writer = Writer::begin(Vec::new(), &head()).unwrap();
        for item in &items() {
            writer.push(item).unwrap();
        }
        let (bytes, counts) = writer.finish().unwrap();
        assert_eq!((counts.records, counts.requests), (1, 1));
        bytes
    }

    fn read(bytes: &[u8]) -> Result<Vec<Item>, StoreError> {
        let (mut reader, found) = Reader::begin(bytes)?;
        assert_eq!(found, head());
        let mut all = Vec::new();
        while let Some(item) = reader.read()? {
            all.push(item);
        }
        Ok(all)
    }

    #[test]
    fn what_was_written_is_read() {
        assert_eq!(read(&written()).unwrap(), items());
    }

    #[test]
    fn no_cut_and_no_turned_bit_goes_unnoticed() {
        let bytes = written();
        for length in 0..bytes.len() {
            assert!(read(&bytes[..length]).is_err(), "cut at {length}");
        }
        for at in 0..bytes.len() * 8 {
            let mut turned = bytes.clone();
            turned[at / 8] ^= 1 << (at % 8);
            assert!(read(&turned).is_err(), "bit {at}");
        }
        let longer = [bytes.as_slice(), b"x"].concat();
        assert!(read(&longer).is_err());
    }
}
