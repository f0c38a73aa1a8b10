//! The city: zones and trips of the record, and which zones are near to which.
//!
//! The record has no coordinates (`data/README.md`), so zones are placed here: boroughs roughly where they are, each zone near the
//! middle of its borough at an offset that follows from its name. Distances inside a borough are invented.
#![forbid(unsafe_code)]

use std::collections::BTreeMap;
use std::path::Path;

use dispatchd::demo::city::TRIPS_CSV;

/// Columns of the record that are used.
const COLUMNS: usize = 14;
const PASSENGERS: usize = 2;
const MILES: usize = 3;
const FARE: usize = 4;
const PICKUP_ZONE: usize = 10;

/// One ride of the record.
#[derive(Debug, Clone, PartialEq)]
pub struct Ride {
    /// Zone where it begins.
    pub from: u16,
    /// Zone where it ends.
    pub to: u16,
    /// The trip as offers carry it: JSON.
    pub trip: String,
}

/// Rides in the order of their pickups, and for each zone all zones, the nearest first.
#[derive(Debug)]
pub struct City {
    /// In the order of the record's pickup times.
    pub rides: Vec<Ride>,
    /// By zone.
    pub near: Vec<Vec<u16>>,
}

impl City {
    /// Reads a record, or the one that comes with this program.
    ///
    /// # Errors
    /// The file's, or the line that is not as expected.
    pub fn load(path: Option<&Path>) -> Result<Self, String> {
        let Some(path) = path else {
            return Self::parse(TRIPS_CSV);
        };
        let text = std::fs::read_to_string(path).map_err(|error| {
            format!(
                "{}: {error} (paths are relative to the working directory)",
                path.display()
            )
        })?;
        Self::parse(&text).map_err(|error| format!("{}: {error}", path.display()))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut rows = Vec::new();
        let mut zones: BTreeMap<(&str, &str), u16> = BTreeMap::new();
        for (index, line) in text.lines().enumerate().skip(1) {
            let fields: Vec<&str> = line.split(',').collect();
            if fields.len() != COLUMNS {
                return Err(format!("line {} has {} fields, not {COLUMNS}", index + 1, fields.len()));
            }
            let zone = |column: usize| (fields[column + 2], fields[column]);
            let ends = (zone(PICKUP_ZONE), zone(PICKUP_ZONE + 1));
            for end in [ends.0, ends.1] {
                let next = zones.len() as u16;
                zones.entry(end).or_insert(next);
            }
            rows.push((fields[0], ends, trip_json(&fields)));
        }
        if rows.is_empty() {
            return Err("there are no trips".into());
        }
        rows.sort_by_key(|row| row.0);
        let rides = rows.into_iter().map(|(_, (from, to), trip)| Ride {
            from: zones[&from],
            to: zones[&to],
            trip,
        });
        Ok(Self {
            rides: rides.collect(),
            near: near(&zones),
        })
    }
}

fn trip_json(fields: &[&str]) -> String {
    let number = |column: usize| fields[column].parse::<f64>().unwrap_or(0.0);
    // Names of zones have neither quotes nor backslashes; the record is checked by its own hash.
    format!(
        r#"{{"from":"{}","to":"{}","passengers":{},"miles":{},"fare_usd":{}}}"#,
        fields[PICKUP_ZONE].replace(['"', '\\'], ""),
        fields[PICKUP_ZONE + 1].replace(['"', '\\'], ""),
        number(PASSENGERS),
        number(MILES),
        number(FARE)
    )
}

/// For each zone all zones, the nearest first; itself is the first.
fn near(zones: &BTreeMap<(&str, &str), u16>) -> Vec<Vec<u16>> {
    let mut places = vec![(0.0, 0.0); zones.len()];
    for ((borough, name), zone) in zones {
        places[usize::from(*zone)] = place(borough, name);
    }
    let nearest = |from: &(f64, f64)| {
        let distance = |zone: &u16| {
            let to = places[usize::from(*zone)];
            (from.0 - to.0).powi(2) + (from.1 - to.1).powi(2)
        };
        let mut order: Vec<u16> = (0..places.len() as u16).collect();
        order.sort_by(|one, other| distance(one).total_cmp(&distance(other)));
        order
    };
    places.iter().map(nearest).collect()
}

/// A place in kilometres from the middle of Manhattan, east and north.
fn place(borough: &str, name: &str) -> (f64, f64) {
    let (east, north) = match borough {
        "Bronx" => (8.0, 10.0),
        "Brooklyn" => (3.0, -14.0),
        "Queens" => (14.0, -6.0),
        "Staten Island" => (-15.0, -23.0),
        _ => (0.0, 0.0),
    };
    // FNV-1a: any hash that stays the same will do.
    let hash = name.bytes().fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3)
    });
    let offset = |bits: u64| (bits & 0xffff) as f64 / 65_535.0 * 10.0 - 5.0;
    (east + offset(hash), north + offset(hash >> 32))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_record_of_the_repository_is_read_whole() {
        let city = City::load(None).unwrap();
        assert_eq!(city.rides.len(), 6433);
        for (zone, order) in city.near.iter().enumerate() {
            assert_eq!(usize::from(order[0]), zone, "a zone is the nearest to itself");
            assert_eq!(order.len(), city.near.len());
        }
        for ride in &city.rides {
            let trip: serde_json::Value = serde_json::from_str(&ride.trip).unwrap();
            assert!(trip["miles"].is_number());
        }
    }

    #[test]
    fn a_line_that_is_cut_is_said() {
        assert!(City::parse("header\n1,2,3\n").unwrap_err().contains("line 2"));
        assert!(City::parse("header\n").unwrap_err().contains("no trips"));
    }
}
