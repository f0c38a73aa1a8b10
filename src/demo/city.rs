//! The city of the demo: real taxi trips, and places for their zones.
//!
//! The trips are the file `data/nyc-taxi-trips-2019-03.csv`, compiled in. It names zones and boroughs but holds no
//! coordinates, so the map is the demo's own: boroughs stand roughly where they are, and each zone stands near the
//! middle of its borough at an offset that follows from its name alone. Distances inside a borough are invented.

use jiff::civil::DateTime;
use std::collections::BTreeMap;
use xxhash_rust::xxh3::xxh3_64;

/// The record, as `data/README.md` describes it.
pub const TRIPS_CSV: &str = include_str!("../../data/nyc-taxi-trips-2019-03.csv");
const HEADER: &str = "pickup,dropoff,passengers,distance,fare,tip,tolls,total,color,payment,pickup_zone,dropoff_zone,pickup_borough,dropoff_borough";

/// A place on the map.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Place {
    /// Degrees north.
    pub lat: f64,
    /// Degrees east.
    pub lon: f64,
}

impl Place {
    /// Square of the distance, in square degrees of latitude: good enough to rank neighbours inside one city.
    pub fn distance_squared(self, other: Self) -> f64 {
        /// Cosine of the city's latitude: a degree of longitude is this many degrees of latitude long.
        const NARROWING: f64 = 0.757;
        let north = self.lat - other.lat;
        let east = (self.lon - other.lon) * NARROWING;
        north * north + east * east
    }
}

/// A zone of the city.
#[derive(Clone, Debug, PartialEq)]
pub struct Zone {
    /// The record's name of it.
    pub name: &'static str,
    /// The borough's name.
    pub borough: &'static str,
    /// Where the demo put it.
    pub place: Place,
    /// Trips that begin in it.
    pub pickups: u32,
}

/// One ride of the record.
#[derive(Clone, Debug, PartialEq)]
pub struct Ride {
    /// Local time of the pickup, as in the record.
    pub picked_up: &'static str,
    /// How long it took, in seconds.
    pub seconds: u32,
    /// Passengers.
    pub passengers: u32,
    /// Miles driven.
    pub miles: f64,
    /// US dollars without tip and tolls.
    pub fare: f64,
    /// Index of the zone where it began.
    pub from: usize,
    /// Index of the zone where it ended.
    pub to: usize,
}

/// All rides in the order of their pickups, and all zones.
#[derive(Debug)]
pub struct City {
    /// Ordered by pickup time.
    pub rides: Vec<Ride>,
    /// Ordered by borough and name.
    pub zones: Vec<Zone>,
}

impl City {
    /// Reads the compiled-in record.
    ///
    /// # Errors
    /// The line that is not as expected; a damaged source tree.
    pub fn load() -> Result<Self, String> {
        let mut lines = TRIPS_CSV.lines();
        if lines.next() != Some(HEADER) {
            return Err("the trips' header is not the expected one".into());
        }
        let mut names: BTreeMap<(&str, &str), u32> = BTreeMap::new();
        let mut rows = Vec::new();
        for (index, line) in lines.enumerate() {
            let row = Row::parse(line).ok_or_else(|| format!("line {} of the trips is malformed", index + 2))?;
            *names.entry(row.from).or_default() += 1;
            names.entry(row.to).or_default();
            rows.push(row);
        }
        rows.sort_by_key(|row| row.picked_up);
        let zones: Vec<Zone> = names
            .iter()
            .map(|(&(borough, name), &pickups)| Zone {
                name: if name.is_empty() { "unknown" } else { name },
                borough: if borough.is_empty() { "unknown" } else { borough },
                place: place_of(borough, name),
                pickups,
            })
            .collect();
        let index_of: BTreeMap<_, usize> = names.keys().copied().zip(0..).collect();
        let rides = rows
            .into_iter()
            .map(|row| row.ride(index_of[&row.from], index_of[&row.to]))
            .collect();
        Ok(Self { rides, zones })
    }

    /// The zone where the `share`-th part (0 to 1) of all pickups lies, zones in their order: a uniform `share` places
    /// drivers where the demand is.
    ///
    /// # Panics
    /// Never: a record that was read has zones.
    pub fn zone_by_demand(&self, share: f64) -> &Zone {
        let wanted = share.clamp(0.0, 1.0) * self.rides.len() as f64;
        let mut passed = 0.0;
        for zone in &self.zones {
            passed += f64::from(zone.pickups);
            if passed > wanted {
                return zone;
            }
        }
        self.zones.last().expect("the record has zones")
    }

    /// The caller's `trip` object of a ride.
    pub fn trip_json(&self, ride: &Ride) -> serde_json::Value {
        let end = |zone: &Zone| {
            serde_json::json!({
                "zone": zone.name, "borough": zone.borough, "lat": zone.place.lat, "lon": zone.place.lon,
            })
        };
        serde_json::json!({
            "pickup": end(&self.zones[ride.from]),
            "dropoff": end(&self.zones[ride.to]),
            "picked_up": ride.picked_up,
            "duration_s": ride.seconds,
            "passengers": ride.passengers,
            "distance_miles": ride.miles,
            "fare_usd": ride.fare,
        })
    }
}

/// One line of the record: borough and zone name each place.
struct Row {
    picked_up: &'static str,
    seconds: u32,
    passengers: u32,
    miles: f64,
    fare: f64,
    from: (&'static str, &'static str),
    to: (&'static str, &'static str),
}

impl Row {
    fn parse(line: &'static str) -> Option<Self> {
        let fields: Vec<&str> = line.split(',').collect();
        let &[
            pickup,
            dropoff,
            passengers,
            miles,
            fare,
            _tip,
            _tolls,
            _total,
            _color,
            _payment,
            from,
            to,
            from_borough,
            to_borough,
        ] = fields.as_slice()
        else {
            return None;
        };
        let begin: DateTime = pickup.parse().ok()?;
        let end: DateTime = dropoff.parse().ok()?;
        let seconds = end.duration_since(begin).as_secs();
        Some(Self {
            picked_up: pickup,
            seconds: u32::try_from(seconds.max(0)).ok()?,
            passengers: passengers.parse().ok()?,
            miles: miles.parse().ok()?,
            fare: fare.parse().ok()?,
            from: (from_borough, from),
            to: (to_borough, to),
        })
    }

    fn ride(&self, from: usize, to: usize) -> Ride {
        Ride {
            picked_up: self.picked_up,
            seconds: self.seconds,
            passengers: self.passengers,
            miles: self.miles,
            fare: self.fare,
            from,
            to,
        }
    }
}

/// The middle of a borough and how far its zones are scattered around it (degrees north, degrees east), roughly. A place
/// without a borough stands in Manhattan, where most trips are.
fn middle_of(borough: &str) -> (Place, f64, f64) {
    let (lat, lon, north, east) = match borough {
        "Bronx" => (40.850, -73.870, 0.035, 0.050),
        "Brooklyn" => (40.650, -73.950, 0.050, 0.050),
        "Queens" => (40.720, -73.820, 0.050, 0.080),
        "Staten Island" => (40.580, -74.150, 0.040, 0.060),
        _ => (40.770, -73.975, 0.060, 0.020),
    };
    (Place { lat, lon }, north, east)
}

fn place_of(borough: &str, zone: &str) -> Place {
    let (middle, north, east) = middle_of(borough);
    let hash = xxh3_64(zone.as_bytes());
    // Two independent halves of the hash, each as a number from -1 to 1.
    let unit = |half: u32| f64::from(half) / f64::from(u32::MAX) * 2.0 - 1.0;
    Place {
        lat: middle.lat + north * unit((hash >> 32) as u32),
        lon: middle.lon + east * unit(hash as u32),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_whole_record_is_read_in_order() {
        let city = City::load().unwrap();
        assert_eq!(city.rides.len(), 6433);
        assert!(city.rides.is_sorted_by_key(|ride| ride.picked_up));
        assert_eq!(city.zones.iter().map(|zone| zone.pickups).sum::<u32>(), 6433);
        assert!(
            city.zones
                .iter()
                .any(|zone| zone.name == "JFK Airport" && zone.pickups == 151)
        );
    }

    #[test]
    fn zones_stand_in_their_boroughs_and_always_at_the_same_place() {
        let city = City::load().unwrap();
        for zone in &city.zones {
            let (middle, north, east) = middle_of(zone.borough);
            assert!((zone.place.lat - middle.lat).abs() <= north, "{zone:?}");
            assert!((zone.place.lon - middle.lon).abs() <= east, "{zone:?}");
        }
        assert_eq!(place_of("Queens", "JFK Airport"), place_of("Queens", "JFK Airport"));
        assert_ne!(place_of("Queens", "JFK Airport"), place_of("Queens", "Astoria"));
    }

    #[test]
    fn demand_decides_where_drivers_stand() {
        let city = City::load().unwrap();
        let drivers = 2000;
        let in_manhattan = (0..drivers)
            .filter(|n| city.zone_by_demand(f64::from(*n) / f64::from(drivers)).borough == "Manhattan")
            .count();
        // 5,268 of 6,433 pickups are there.
        assert!((1600..1680).contains(&in_manhattan), "{in_manhattan}");
        assert_eq!(city.zone_by_demand(1.0).name, city.zones.last().unwrap().name);
    }

    #[test]
    fn a_trip_is_an_object_that_fits_a_frame() {
        let city = City::load().unwrap();
        let longest = city
            .rides
            .iter()
            .map(|ride| city.trip_json(ride).to_string().len())
            .max();
        assert!(longest.unwrap() < 1024);
    }
}
