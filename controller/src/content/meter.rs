//! Counts bytes on both sides of the decompressor, below the tar parser, and stops the stream at the first byte over a
//! cap. What the parser above does with the bytes cannot get around it.

use std::{
    cell::Cell,
    io::{self, BufRead, Read},
};

use super::{
    error::{Cap, CapExceeded},
    limits::Limits,
};

/// Counts the compressed bytes that the decompressor took.
pub(super) struct Taken<'a, R> {
    pub(super) inner: R,
    pub(super) count: &'a Cell<u64>,
}

impl<R: BufRead> Read for Taken<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.count.set(self.count.get().saturating_add(read as u64));
        Ok(read)
    }
}

impl<R: BufRead> BufRead for Taken<'_, R> {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        self.inner.fill_buf()
    }

    fn consume(&mut self, amount: usize) {
        self.count.set(self.count.get().saturating_add(amount as u64));
        self.inner.consume(amount);
    }
}

/// Hands on decompressed bytes until a cap is exceeded.
pub(super) struct Metered<'a, R> {
    inner: R,
    taken: &'a Cell<u64>,
    given: u64,
    limits: &'a Limits,
}

impl<'a, R: Read> Metered<'a, R> {
    pub(super) fn new(inner: R, taken: &'a Cell<u64>, limits: &'a Limits) -> Self {
        Self {
            inner,
            taken,
            given: 0,
            limits,
        }
    }

    fn check(&self) -> Result<(), CapExceeded> {
        if self.given > self.limits.max_unpacked {
            return Err(CapExceeded(Cap::Unpacked(self.limits.max_unpacked)));
        }
        let allowed = self.taken.get().saturating_mul(self.limits.max_ratio);
        if self.given > self.limits.ratio_free && self.given > allowed {
            return Err(CapExceeded(Cap::Ratio(self.limits.max_ratio)));
        }
        Ok(())
    }
}

impl<R: Read> Read for Metered<'_, R> {
    fn read(&mut self, buf: &mut [u8]) -> io::Result<usize> {
        let read = self.inner.read(buf)?;
        self.given = self.given.saturating_add(read as u64);
        self.check().map_err(io::Error::other)?;
        Ok(read)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_all(bytes: u64, taken: u64, limits: &Limits) -> io::Result<u64> {
        let taken = Cell::new(taken);
        io::copy(
            &mut Metered::new(io::repeat(0).take(bytes), &taken, limits),
            &mut io::sink(),
        )
    }

    #[test]
    fn size_is_capped_at_the_limit() {
        let limits = Limits {
            max_unpacked: 1000,
            ..Limits::default()
        };
        assert_eq!(read_all(1000, 1, &limits).unwrap(), 1000);
        assert_eq!(
            read_all(1001, 1, &limits).unwrap_err().to_string(),
            "layer has more than 1000 bytes when unpacked"
        );
    }

    #[test]
    fn ratio_counts_only_after_the_free_part() {
        let limits = Limits {
            ratio_free: 1000,
            max_ratio: 200,
            ..Limits::default()
        };
        assert!(read_all(1000, 1, &limits).is_ok());
        assert!(read_all(1001, 1, &limits).is_err());
        assert!(read_all(2000, 10, &limits).is_ok());
        assert!(read_all(2001, 10, &limits).is_err());
    }
}
