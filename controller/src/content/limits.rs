//! The caps that a layer is extracted under. Each is enforced while bytes are read, before anything is allocated for
//! them, so that a hostile layer costs no more than the cap it runs into.

/// How many extractions may run at once: what bounds the memory and disk that layers can take together.
pub const MAX_CONCURRENT_EXTRACTIONS: usize = 2;

/// Caps of one extraction. [`Limits::default`] holds the documented values.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Tar headers of any kind, plus directories that the layer implies without naming them.
    pub max_entries: u32,
    /// Path elements of an entry.
    pub max_depth: usize,
    /// Bytes of an entry's path.
    pub max_path: usize,
    /// Bytes of all extension headers (GNU long names, PAX records) together.
    pub max_extension_bytes: u64,
    /// Bytes that come out of the decompressor: contents, headers and padding (`--artifact-max-unpacked-size`).
    pub max_unpacked: u64,
    /// Bytes out per byte in, once more than `ratio_free` bytes came out.
    pub max_ratio: u64,
    /// Bytes that may come out at any ratio.
    pub ratio_free: u64,
    /// Contents up to this size stay in memory; beyond it they go to an unlinked file.
    pub spool_memory: usize,
}

const KIB: u64 = 1024;
const MIB: u64 = 1024 * KIB;

impl Default for Limits {
    fn default() -> Self {
        Self {
            max_entries: 100_000,
            max_depth: 64,
            max_path: 4096,
            max_extension_bytes: MIB,
            max_unpacked: 512 * MIB,
            max_ratio: 200,
            ratio_free: 10 * MIB,
            spool_memory: 1024 * 1024,
        }
    }
}
