//! `tune keep-awake`: keeps the cores out of sleep states that take long to leave.
//!
//! A shard sleeps thousands of times a second, for fractions of a millisecond. How long its core then takes to wake up is
//! added to every message and every commit: 1 µs from the lightest state of a processor, 100 µs and more from a deep one,
//! and from a halt in a virtual machine as long as the host needs to find a core for it. The kernel's way to bound it is a
//! request for quality of service (`Documentation/power/pm_qos_interface.rst`, "PM `QoS` framework"), which holds as long as
//! the file is open.
#![forbid(unsafe_code)]

use std::fs::{File, OpenOptions};
use std::io::{self, Read, Write};

use super::host::Host;

/// The kernel's device for it.
pub(super) const DEVICE: &str = "/dev/cpu_dma_latency";

/// What the kernel answers when nobody has asked for anything, in microseconds (`PM_QOS_CPU_LATENCY_DEFAULT_VALUE`).
pub(super) const NOBODY_ASKED: i32 = 2_000_000_000;

/// Asks the kernel that no core takes longer than `latency_us_max` microseconds to wake up (0: idle cores spin), until the file
/// that this returns is closed.
///
/// # Errors
/// The device's: it belongs to root, and some virtual machines do not have it.
pub fn keep_awake(host: &Host, latency_us_max: u32) -> io::Result<File> {
    let mut file = OpenOptions::new().write(true).open(host.path(DEVICE))?;
    // The kernel takes a number of 4 bytes, or a text in hexadecimal of another length.
    let latency = i32::try_from(latency_us_max).unwrap_or(i32::MAX);
    file.write_all(&latency.to_ne_bytes())?;
    Ok(file)
}

/// What all requests together ask for, in microseconds.
pub(super) fn latency_us_max(host: &Host) -> io::Result<i32> {
    let mut latency = [0; 4];
    File::open(host.path(DEVICE))?.read_exact(&mut latency)?;
    Ok(i32::from_ne_bytes(latency))
}

/// Holds such a request until a signal ends the process.
///
/// # Errors
/// As [`keep_awake`], with the device's name; and the output's.
pub fn keep_awake_command(host: &Host, latency_us_max: u32, out: &mut dyn Write) -> io::Result<u8> {
    let request = keep_awake(host, latency_us_max);
    let _held = request.map_err(|error| io::Error::new(error.kind(), format!("{DEVICE}: {error}")))?;
    writeln!(
        out,
        "cores wake up within {latency_us_max} µs as long as this runs; SIGTERM or Ctrl-C ends it"
    )?;
    out.flush()?;
    loop {
        std::thread::park();
    }
}
