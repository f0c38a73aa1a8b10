//! Cases as they stand in the list's files.
//!
//! A file is TOML, one `[[case]]` each: `name`; `rfc`, the section that decides; `request`; `answers`, in their order, each
//! a status and the problem's code, or `bodiless`; `connection`, which `lives` or `ends` after the last answer; and, if
//! they matter, a `field` and a part of the `body` of the last answer.
//!
//! In `request` the end of a line is CRLF. `\r`, `\n`, `\t`, `\0`, `\xHH` and `\\` are the bytes that they are elsewhere, and
//! `{{text*N}}` is `text` N times.

use serde::Deserialize;

/// One case.
#[derive(Debug)]
pub struct Case {
    pub name: String,
    pub rfc: String,
    pub request: Vec<u8>,
    pub answers: Vec<Expect>,
    /// A field of the last answer, and its value.
    pub field: Option<(String, String)>,
    /// What the last answer's body contains.
    pub body: String,
    /// Whether the connection goes on after the last answer.
    pub lives: bool,
}

/// What an answer must be.
#[derive(Debug)]
pub struct Expect {
    pub status: u16,
    /// The problem's code.
    pub code: Option<String>,
    /// It has no content, whatever its length says: the answer to `HEAD`.
    pub bodiless: bool,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    case: Vec<Entry>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Entry {
    name: String,
    rfc: String,
    request: String,
    answers: Vec<String>,
    field: Option<String>,
    #[serde(default)]
    body: String,
    connection: Connection,
}

#[derive(Deserialize, PartialEq)]
#[serde(rename_all = "lowercase")]
enum Connection {
    Lives,
    Ends,
}

impl Case {
    /// Whether `100 Continue` may come before its answer.
    pub fn asks_to_continue(&self) -> bool {
        let request = self.request.to_ascii_lowercase();
        request.windows(12).any(|window| window == b"100-continue")
    }
}

/// The cases of a file.
///
/// # Panics
/// When the file is not as it should be.
pub fn read(file: &str, text: &str) -> Vec<Case> {
    let parsed: File = toml::from_str(text).unwrap_or_else(|error| panic!("{file}: {error}"));
    parsed.case.into_iter().map(case).collect()
}

fn case(entry: Entry) -> Case {
    let field = entry.field.map(|field| {
        let (name, value) = field.split_once(": ").expect("a field and its value");
        (name.to_owned(), value.to_owned())
    });
    Case {
        request: bytes(&entry.request),
        answers: entry.answers.iter().map(|text| expect(text)).collect(),
        field,
        body: entry.body,
        lives: entry.connection == Connection::Lives,
        name: entry.name,
        rfc: entry.rfc,
    }
}

fn expect(text: &str) -> Expect {
    let (status, rest) = text.split_once(' ').unwrap_or((text, ""));
    let bodiless = rest == "bodiless";
    Expect {
        status: status.parse().expect("a status"),
        code: (!bodiless && !rest.is_empty()).then(|| rest.to_owned()),
        bodiless,
    }
}

/// What a request's text stands for.
fn bytes(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(start) = rest.find("{{") {
        bytes.extend(plain(&rest[..start]));
        let (repeat, after) = rest[start + 2..].split_once("}}").expect("a repetition's end");
        let (what, times) = repeat.rsplit_once('*').expect("a repetition's count");
        bytes.extend(plain(what).repeat(times.parse().expect("a number of times")));
        rest = after;
    }
    bytes.extend(plain(rest));
    bytes
}

fn plain(text: &str) -> Vec<u8> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut chars = text.chars();
    while let Some(char) = chars.next() {
        match char {
            '\n' => bytes.extend(b"\r\n"),
            '\\' => bytes.push(match chars.next() {
                Some('r') => b'\r',
                Some('n') => b'\n',
                Some('t') => b'\t',
                Some('0') => 0,
                Some('\\') => b'\\',
                Some('x') => {
                    let digits: String = chars.by_ref().take(2).collect();
                    u8::from_str_radix(&digits, 16).expect("two hex digits")
                }
                other => panic!("\\ before {other:?}"),
            }),
            char => bytes.extend(char.encode_utf8(&mut [0; 4]).bytes()),
        }
    }
    bytes
}
