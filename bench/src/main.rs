//! `dispatchd-bench`: see `--help`, and the library's modules.
#![forbid(unsafe_code)]

fn main() -> std::process::ExitCode {
    dispatchd_bench::cli::main()
}
