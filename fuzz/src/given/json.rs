//! A JSON object as `serde_json` reads it into values, with every member that was given, also twice.

use serde::de::{Deserialize, Deserializer, MapAccess, Visitor};
use serde_json::Value;

/// What the second reader says of a text.
pub enum Second {
    /// No JSON object.
    No,
    /// JSON by its grammar, but more than this reader holds: nested too deep, a number out of range, half a surrogate.
    Unclear,
    /// An object.
    Object(Members),
}

/// Members in their order.
pub struct Members(Vec<(String, Value)>);

impl Members {
    /// Whether one of these was given more than once.
    pub fn repeats(&self, names: &[&str]) -> bool {
        names
            .iter()
            .any(|name| self.0.iter().filter(|(given, _)| given == name).count() > 1)
    }

    /// The value of a member; `null` counts as not given.
    pub fn get(&self, name: &str) -> Option<&Value> {
        let value = &self.0.iter().find(|(given, _)| given == name)?.1;
        (!value.is_null()).then_some(value)
    }
}

impl<'de> Deserialize<'de> for Members {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Reader;
        impl<'de> Visitor<'de> for Reader {
            type Value = Members;
            fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                f.write_str("an object")
            }
            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Members, A::Error> {
                let mut members = Vec::new();
                while let Some(member) = map.next_entry()? {
                    members.push(member);
                }
                Ok(Members(members))
            }
        }
        deserializer.deserialize_map(Reader)
    }
}

/// Reads `text` the second way.
pub fn second(text: &[u8]) -> Second {
    let over = [
        "recursion limit",
        "out of range",
        "surrogate",
        "hex escape",
        "code point",
    ];
    // serde_json gives a meaning of its own to this name.
    if memchr::memmem::find(text, b"$serde_json").is_some() {
        return Second::Unclear;
    }
    match serde_json::from_slice::<Members>(text) {
        Ok(members) => Second::Object(members),
        Err(error) if over.iter().any(|words| error.to_string().contains(words)) => Second::Unclear,
        Err(_) => Second::No,
    }
}

/// An optional member of a type: `Err` when it is of another.
pub type Given<T> = Result<Option<T>, ()>;

/// A string.
pub fn text<'a>(members: &'a Members, name: &str) -> Given<&'a str> {
    members.get(name).map(|value| value.as_str().ok_or(())).transpose()
}

/// A string that `parse` takes.
pub fn id<T, E>(members: &Members, name: &str, parse: fn(&str) -> Result<T, E>) -> Given<T> {
    text(members, name)?.map(|text| parse(text).map_err(drop)).transpose()
}

/// A whole number in a range.
pub fn number(members: &Members, name: &str, min: u64, max: u64) -> Given<u32> {
    let Some(value) = members.get(name) else {
        return Ok(None);
    };
    let value = value.as_u64().filter(|value| (min..=max).contains(value)).ok_or(())?;
    Ok(Some(u32::try_from(value).expect("a bound of 32 bits")))
}

/// Somebody's words.
pub fn reason(members: &Members) -> Given<Box<str>> {
    match text(members, "reason")? {
        Some(words) if words.chars().count() > 256 => Err(()),
        words => Ok(words.map(Into::into)),
    }
}
