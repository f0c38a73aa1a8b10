//! Ids on the wire and their short numbers: drivers and requests are numbered by the run, trips in the order in which
//! they were first seen.

use crate::codec::Bad;
use crate::plan::{NODES_MAX, node_name};
use dispatchd::config::Config;
use std::collections::HashMap;

/// A driver, from 0.
pub type Driver = u32;
/// A request, from 0.
pub type Request = u32;
/// A trip, from 0 in the order of sight.
pub type Trip = u32;

/// An offer: a request's attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Offer {
    /// The request.
    pub request: Request,
    /// From 1.
    pub attempt: u32,
}

impl std::fmt::Display for Offer {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "r{}#{}", self.request, self.attempt)
    }
}

/// How ids are written; short ones and long ones take different ways through the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Style {
    /// Before a driver's number.
    pub driver: &'static str,
    /// Before a request's number.
    pub request: &'static str,
}

impl Style {
    /// Those that a seed draws from.
    pub const ALL: [Self; 3] = [
        Self {
            driver: "d",
            request: "r",
        },
        Self {
            driver: "driver.",
            request: "request:of-the-city-",
        },
        Self {
            driver: "driver-with-an-id-that-no-inline-string-holds.",
            request: "request-with-an-id-that-no-inline-string-holds:",
        },
    ];
}

/// The ids of a run.
#[derive(Clone, Debug)]
pub struct Ids {
    style: Style,
    trips: HashMap<Box<str>, Trip>,
    trip_names: Vec<Box<str>>,
    /// The name of a node that is alone, then those of a fleet's.
    node_names: Vec<String>,
}

impl Ids {
    /// None seen yet.
    pub fn new(style: Style) -> Self {
        Self {
            style,
            trips: HashMap::new(),
            trip_names: Vec::new(),
            node_names: std::iter::once(Config::default().node_id.to_string())
                .chain((0..NODES_MAX).map(node_name))
                .collect(),
        }
    }

    /// Appends a driver's id.
    pub fn write_driver(&self, out: &mut Vec<u8>, driver: Driver) {
        out.extend_from_slice(self.style.driver.as_bytes());
        write_number(out, u64::from(driver));
    }

    /// Appends a request's id.
    pub fn write_request(&self, out: &mut Vec<u8>, request: Request) {
        out.extend_from_slice(self.style.request.as_bytes());
        write_number(out, u64::from(request));
    }

    /// A driver's id.
    pub fn driver(&self, driver: Driver) -> String {
        format!("{}{driver}", self.style.driver)
    }

    /// A request's id.
    pub fn request(&self, request: Request) -> String {
        format!("{}{request}", self.style.request)
    }

    /// A trip's id.
    pub fn trip(&self, trip: Trip) -> &str {
        &self.trip_names[trip as usize]
    }

    /// The driver of an id.
    ///
    /// # Errors
    /// When no driver of a run has it.
    pub fn read_driver(&self, id: &str) -> Result<Driver, Bad> {
        read(self.style.driver, id)
    }

    /// The request of an id.
    ///
    /// # Errors
    /// When no request of a run has it.
    pub fn read_request(&self, id: &str) -> Result<Request, Bad> {
        read(self.style.request, id)
    }

    /// The node of a name: of a fleet's, or of one that is alone.
    ///
    /// # Errors
    /// When no node of a run has it.
    pub fn read_node(&self, name: &str) -> Result<u8, Bad> {
        let place = self.node_names.iter().position(|known| known == name);
        // Whoever is alone has the number of a fleet's first.
        place
            .map(|place| place.saturating_sub(1) as u8)
            .ok_or_else(|| Bad::new(format!("a node that is none: {name}")))
    }

    /// The trip of an id, new ones included.
    pub fn read_trip(&mut self, id: &str) -> Trip {
        if let Some(trip) = self.trips.get(id) {
            return *trip;
        }
        let trip = self.trip_names.len() as Trip;
        self.trip_names.push(id.into());
        self.trips.insert(id.into(), trip);
        trip
    }
}

fn read(prefix: &str, id: &str) -> Result<u32, Bad> {
    id.strip_prefix(prefix)
        .and_then(|digits| digits.parse().ok())
        .ok_or_else(|| Bad::new(format!("an id that nobody has: {id}")))
}

/// Appends a number.
pub fn write_number(out: &mut Vec<u8>, number: u64) {
    let mut digits = [0u8; 20];
    let mut at = digits.len();
    let mut rest = number;
    loop {
        at -= 1;
        digits[at] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&digits[at..]);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_are_read_back() {
        for style in Style::ALL {
            let mut ids = Ids::new(style);
            assert_eq!(ids.read_driver(&ids.driver(17)), Ok(17));
            assert_eq!(ids.read_request(&ids.request(0)), Ok(0));
            assert!(ids.read_driver("x1").is_err());
            assert!(ids.read_request(&format!("{}x", ids.request(1))).is_err());
            assert_eq!(
                (ids.read_trip("t-a"), ids.read_trip("t-b"), ids.read_trip("t-a")),
                (0, 1, 0)
            );
            assert_eq!(ids.trip(1), "t-b");
            assert_eq!(ids.read_node(&Config::default().node_id), Ok(0));
            assert_eq!(ids.read_node(&node_name(2)), Ok(2));
            assert!(ids.read_node("d1").is_err());
        }
    }

    #[test]
    fn numbers() {
        for number in [0, 9, 10, 12_345, u64::MAX] {
            let mut out = Vec::new();
            write_number(&mut out, number);
            assert_eq!(out, number.to_string().as_bytes());
        }
    }
}
