//! Reading JSON (RFC 8259) without building it: members of an object, items of a list, one at a time.
//!
//! Nested values are handed out as text. Their brackets and strings are checked, their grammar is checked when they are
//! read in turn.

use super::Bad;

/// A value, as text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Value<'a> {
    /// Between the quotes, escapes as they are.
    Text(&'a str),
    /// A number as it stands.
    Number(&'a str),
    /// `true` or `false`.
    Bool(bool),
    /// `null`.
    Null,
    /// With its braces.
    Object(&'a str),
    /// With its brackets.
    List(&'a str),
}

impl<'a> Value<'a> {
    /// The text of a string.
    ///
    /// # Errors
    /// When it is none.
    pub fn text(self) -> Result<&'a str, Bad> {
        match self {
            Self::Text(text) => Ok(text),
            other => Err(Bad::new(format!("{other:?} is no string"))),
        }
    }

    /// A whole number.
    ///
    /// # Errors
    /// When it is none, or does not fit.
    pub fn number(self) -> Result<u64, Bad> {
        match self {
            Self::Number(digits) => digits
                .parse()
                .map_err(|_| Bad::new(format!("{digits} is no whole number"))),
            other => Err(Bad::new(format!("{other:?} is no number"))),
        }
    }
}

/// The members of an object or the items of a list, in order.
#[derive(Clone, Debug)]
pub struct Reader<'a> {
    text: &'a str,
    at: usize,
    close: u8,
    first: bool,
}

/// Reads an object.
///
/// # Errors
/// When `text` does not begin with `{`.
pub fn object(text: &str) -> Result<Reader<'_>, Bad> {
    open(text, b'{', b'}')
}

/// Reads a list.
///
/// # Errors
/// When `text` does not begin with `[`.
pub fn list(text: &str) -> Result<Reader<'_>, Bad> {
    open(text, b'[', b']')
}

fn open(text: &str, bracket: u8, close: u8) -> Result<Reader<'_>, Bad> {
    if text.as_bytes().first() != Some(&bracket) {
        return Err(Bad::new(format!("no {}: {text}", char::from(bracket))));
    }
    Ok(Reader {
        text,
        at: 1,
        close,
        first: true,
    })
}

impl<'a> Reader<'a> {
    /// The next member of an object.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn member(&mut self) -> Result<Option<(&'a str, Value<'a>)>, Bad> {
        if !self.more()? {
            return Ok(None);
        }
        let key = self.string()?;
        self.skip_blanks();
        if self.byte() != Some(b':') {
            return Err(self.bad("no colon"));
        }
        self.at += 1;
        self.skip_blanks();
        Ok(Some((key, self.value()?)))
    }

    /// The next item of a list.
    ///
    /// # Errors
    /// When the text is no JSON.
    pub fn item(&mut self) -> Result<Option<Value<'a>>, Bad> {
        if !self.more()? {
            return Ok(None);
        }
        self.value().map(Some)
    }

    fn byte(&self) -> Option<u8> {
        self.text.as_bytes().get(self.at).copied()
    }

    fn bad(&self, what: &str) -> Bad {
        Bad::new(format!("{what} at byte {} of {}", self.at, self.text))
    }

    fn skip_blanks(&mut self) {
        while self
            .byte()
            .is_some_and(|byte| matches!(byte, b' ' | b'\t' | b'\r' | b'\n'))
        {
            self.at += 1;
        }
    }

    /// Steps over a comma or the end; says whether something follows.
    fn more(&mut self) -> Result<bool, Bad> {
        self.skip_blanks();
        if self.byte() == Some(self.close) {
            self.at += 1;
            self.skip_blanks();
            return if self.at == self.text.len() {
                Ok(false)
            } else {
                Err(self.bad("something after the end"))
            };
        }
        if !self.first {
            if self.byte() != Some(b',') {
                return Err(self.bad("no comma"));
            }
            self.at += 1;
            self.skip_blanks();
        }
        self.first = false;
        Ok(true)
    }

    fn string(&mut self) -> Result<&'a str, Bad> {
        if self.byte() != Some(b'"') {
            return Err(self.bad("no string"));
        }
        let from = self.at + 1;
        let end = string_end(self.text.as_bytes(), from).ok_or_else(|| self.bad("a string without an end"))?;
        self.at = end + 1;
        Ok(&self.text[from..end])
    }

    fn value(&mut self) -> Result<Value<'a>, Bad> {
        let from = self.at;
        match self.byte() {
            Some(b'"') => self.string().map(Value::Text),
            Some(b'{') => self.nested(from).map(Value::Object),
            Some(b'[') => self.nested(from).map(Value::List),
            Some(b'-' | b'0'..=b'9') => {
                let digits = |byte: &u8| matches!(byte, b'-' | b'+' | b'.' | b'e' | b'E' | b'0'..=b'9');
                let length = self.text.as_bytes()[from..]
                    .iter()
                    .take_while(|byte| digits(byte))
                    .count();
                self.at += length;
                Ok(Value::Number(&self.text[from..self.at]))
            }
            _ => self.word(),
        }
    }

    fn word(&mut self) -> Result<Value<'a>, Bad> {
        for (word, value) in [
            ("true", Value::Bool(true)),
            ("false", Value::Bool(false)),
            ("null", Value::Null),
        ] {
            if self.text[self.at..].starts_with(word) {
                self.at += word.len();
                return Ok(value);
            }
        }
        Err(self.bad("no value"))
    }

    fn nested(&mut self, from: usize) -> Result<&'a str, Bad> {
        let bytes = self.text.as_bytes();
        let mut depth = 0usize;
        let mut at = from;
        while let Some(byte) = bytes.get(at) {
            match byte {
                b'"' => at = string_end(bytes, at + 1).ok_or_else(|| self.bad("a string without an end"))?,
                b'{' | b'[' => depth += 1,
                b'}' | b']' => {
                    depth -= 1;
                    if depth == 0 {
                        self.at = at + 1;
                        return Ok(&self.text[from..self.at]);
                    }
                }
                _ => {}
            }
            at += 1;
        }
        Err(self.bad("no closing bracket"))
    }
}

/// Where the closing quote is.
fn string_end(bytes: &[u8], from: usize) -> Option<usize> {
    let mut at = from;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at),
            b'\\' => at += 2,
            0..=0x1f => return None,
            _ => at += 1,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn members(text: &str) -> Result<Vec<(&str, Value<'_>)>, Bad> {
        let mut reader = object(text)?;
        let mut all = Vec::new();
        while let Some(member) = reader.member()? {
            all.push(member);
        }
        Ok(all)
    }

    #[test]
    fn members_of_every_kind() {
        let text = r#"{ "a":"x\"}","b":17 ,"c":true,"d":null,"e":{"n":["}"]},"f":[1,[2]],"g":-1.5e3}"#;
        let expect = vec![
            ("a", Value::Text("x\\\"}")),
            ("b", Value::Number("17")),
            ("c", Value::Bool(true)),
            ("d", Value::Null),
            ("e", Value::Object(r#"{"n":["}"]}"#)),
            ("f", Value::List("[1,[2]]")),
            ("g", Value::Number("-1.5e3")),
        ];
        assert_eq!(members(text), Ok(expect));
        assert_eq!(members("{}"), Ok(Vec::new()));
    }

    #[test]
    fn items() {
        let mut reader = list(r#"["a", 2,{}]"#).unwrap();
        assert_eq!(reader.item(), Ok(Some(Value::Text("a"))));
        assert_eq!(reader.item(), Ok(Some(Value::Number("2"))));
        assert_eq!(reader.item(), Ok(Some(Value::Object("{}"))));
        assert_eq!(reader.item(), Ok(None));
    }

    #[test]
    fn what_is_no_json_is_refused() {
        for text in [
            "",
            "[]",
            "{",
            "{\"a\"}",
            "{\"a\":1",
            "{\"a\":1,}",
            "{\"a\":1}x",
            "{\"a\":\"b}",
            "{\"a\":{}",
            "{\"a\":\"\n\"}",
            "{\"a\":nul}",
            "{\"a\":1 \"b\":2}",
        ] {
            assert!(members(text).is_err(), "{text}");
        }
    }
}
