//! The `mintmark` binary: everything is in the library.

fn main() -> std::process::ExitCode {
    mintmark::cli::main()
}
