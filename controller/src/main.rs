//! The `mintmark` binary: everything is in the library, but the choice of the allocator. How it is set up stands in
//! `.cargo/config.toml`, why in `docs/performance.md`.

/// glibc's keeps an arena per thread and gives little of what passes have used back to the system.
#[global_allocator]
static ALLOCATOR: tikv_jemallocator::Jemalloc = tikv_jemallocator::Jemalloc;

fn main() -> std::process::ExitCode {
    mintmark::cli::main()
}
