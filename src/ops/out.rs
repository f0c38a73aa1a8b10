//! Lines on standard output for programs that have more to do than to print: processes to end, files to write, a status to exit
//! with. When whoever read them has seen enough (`| head`), they are not printed, and the program goes on.
#![forbid(unsafe_code)]

use std::fmt::Arguments;
use std::io::{self, ErrorKind, Write};

/// `println!` for a reader who may go away, which is no panic.
#[macro_export]
macro_rules! say {
    ($($words:tt)*) => {
        $crate::ops::out::line(::std::format_args!($($words)*))
    };
}

/// What [`say!`](crate::say) does.
pub fn line(text: Arguments<'_>) {
    if let Err(error) = writeln!(io::stdout().lock(), "{text}")
        && error.kind() != ErrorKind::BrokenPipe
    {
        // Nobody may be there to read that either.
        let _ = writeln!(io::stderr(), "cannot write to standard output: {error}");
    }
}
