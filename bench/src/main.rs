//! `dispatchd-bench`: see `--help`, and the library's modules.

fn main() -> std::process::ExitCode {
    dispatchd_bench::cli::main()
}
