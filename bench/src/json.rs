//! A scanner over the top-level fields of one JSON object: just enough to read the server's messages at a few
//! nanoseconds per byte. It borrows, allocates nothing, and checks structure only as far as finding the fields needs.
#![forbid(unsafe_code)]

/// A top-level value, as it stands in the text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Value<'a> {
    /// What stands between the quotes, escapes untouched.
    Text(&'a [u8]),
    /// A number, literal, object or array.
    Raw(&'a [u8]),
}

impl<'a> Value<'a> {
    /// The text of a string, or nothing.
    pub fn text(self) -> Option<&'a [u8]> {
        match self {
            Self::Text(text) => Some(text),
            Self::Raw(_) => None,
        }
    }

    /// An unsigned whole number, or nothing.
    pub fn number(self) -> Option<u64> {
        match self {
            Self::Text(_) => None,
            Self::Raw(digits) => parse_number(digits),
        }
    }
}

/// Reads decimal digits; nothing for an empty text, other characters or more than 64 bits.
pub fn parse_number(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() {
        return None;
    }
    digits.iter().try_fold(0u64, |number, digit| {
        let digit = digit.is_ascii_digit().then(|| u64::from(digit - b'0'))?;
        number.checked_mul(10)?.checked_add(digit)
    })
}

/// Iterator over an object's top-level fields; ends early where the text is not an object.
pub struct Fields<'a> {
    text: &'a [u8],
    at: usize,
}

impl<'a> Fields<'a> {
    /// Starts at the object's opening brace.
    pub fn of(text: &'a [u8]) -> Self {
        let mut fields = Self { text, at: 0 };
        if !fields.accept(b'{') {
            fields.at = text.len();
        }
        fields
    }

    fn skip_space(&mut self) {
        while self.text.get(self.at).is_some_and(u8::is_ascii_whitespace) {
            self.at += 1;
        }
    }

    fn accept(&mut self, wanted: u8) -> bool {
        self.skip_space();
        let found = self.text.get(self.at) == Some(&wanted);
        self.at += usize::from(found);
        found
    }

    /// A string's inner bytes; the position is behind its opening quote.
    fn string(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        loop {
            match *self.text.get(self.at)? {
                b'"' => break,
                b'\\' => self.at += 2,
                _ => self.at += 1,
            }
        }
        let inner = &self.text[start..self.at];
        self.at += 1;
        Some(inner)
    }

    fn raw(&mut self) -> Option<&'a [u8]> {
        let start = self.at;
        let mut depth = 0usize;
        loop {
            match *self.text.get(self.at)? {
                b'"' => {
                    self.at += 1;
                    self.string()?;
                    continue;
                }
                b'{' | b'[' => depth += 1,
                b'}' | b']' | b',' if depth == 0 => break,
                b'}' | b']' => depth -= 1,
                _ => {}
            }
            self.at += 1;
        }
        let raw = self.text[start..self.at].trim_ascii_end();
        (!raw.is_empty()).then_some(raw)
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = (&'a [u8], Value<'a>);

    fn next(&mut self) -> Option<Self::Item> {
        self.accept(b',');
        if !self.accept(b'"') {
            return None;
        }
        let key = self.string()?;
        if !self.accept(b':') {
            return None;
        }
        let value = if self.accept(b'"') {
            Value::Text(self.string()?)
        } else {
            Value::Raw(self.raw()?)
        };
        Some((key, value))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, expect: &[(&str, Value<'_>)]) {
        let found: Vec<_> = Fields::of(text.as_bytes()).collect();
        let expect: Vec<_> = expect.iter().map(|(key, value)| (key.as_bytes(), *value)).collect();
        assert_eq!(found, expect, "{text}");
    }

    #[test]
    fn fields_are_found_at_the_top_only() {
        check("{}", &[]);
        check(r#"{"a":1}"#, &[("a", Value::Raw(b"1"))]);
        check(
            r#" { "type" : "OFFER" , "trip" : {"type":"X","n":[1,{"q":"]}\""}]} , "ttl_ms":8000 }"#,
            &[
                ("type", Value::Text(b"OFFER")),
                ("trip", Value::Raw(br#"{"type":"X","n":[1,{"q":"]}\""}]}"#)),
                ("ttl_ms", Value::Raw(b"8000")),
            ],
        );
        check(
            r#"{"a":"x\"y","b":null}"#,
            &[("a", Value::Text(br#"x\"y"#)), ("b", Value::Raw(b"null"))],
        );
    }

    #[test]
    fn a_text_that_is_cut_or_no_object_ends_early() {
        check("", &[]);
        check("[1,2]", &[]);
        check(r#"{"a"#, &[]);
        check(r#"{"a":"b"#, &[]);
        check(r#"{"a":"b\"#, &[]);
        check(r#"{"a":1,"b":{"#, &[("a", Value::Raw(b"1"))]);
        check(r#"{"a":}"#, &[]);
    }

    #[test]
    fn numbers_are_whole_and_bounded() {
        assert_eq!(parse_number(b"0"), Some(0));
        assert_eq!(parse_number(b"18446744073709551615"), Some(u64::MAX));
        for bad in [&b""[..], b"-1", b"1.5", b"18446744073709551616", b"1e3"] {
            assert_eq!(parse_number(bad), None);
        }
    }
}
