//! What the fuzz targets share: inputs that are nearly well-formed, and how long a target runs among the tests.
//!
//! A target is an ordinary test named `fuzz::<what>`. `cargo test` runs each for two seconds from fresh seeds (a failure
//! prints its seed); `cargo bolero test` runs the same target under libFuzzer, whose bytes then choose the edits.

use std::time::Duration;

use bolero::{Driver, generator::ValueGenerator};

/// How long a target runs in the tests.
pub(crate) const BRIEFLY: Duration = Duration::from_secs(2);
/// Rounds of a target, which end before that time only on a machine far faster than ours.
pub(crate) const ROUNDS: usize = 10_000_000;
/// Most edits of one input.
const MAX_EDITS: usize = 8;
/// Most bytes of one input.
const MAX_LEN: usize = 16 * 1024;

/// One of some well-formed documents, edited a few times: bytes changed, taken out, doubled, or a word put in.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Edited {
    /// The documents.
    pub(crate) documents: &'static [&'static str],
    /// What is put in.
    pub(crate) words: &'static [&'static str],
}

impl ValueGenerator for Edited {
    type Output = Vec<u8>;

    fn generate<D: Driver>(&self, driver: &mut D) -> Option<Vec<u8>> {
        let mut bytes = pick(driver, self.documents)?.as_bytes().to_vec();
        for _ in 0..below(driver, MAX_EDITS + 1)? {
            self.edit(driver, &mut bytes)?;
        }
        bytes.truncate(MAX_LEN);
        Some(bytes)
    }
}

impl Edited {
    fn edit<D: Driver>(&self, driver: &mut D, bytes: &mut Vec<u8>) -> Option<()> {
        let from = place(driver, bytes)?;
        let to = (from + below(driver, 40)?).min(bytes.len());
        match below(driver, 6)? {
            0 => {
                if let Some(byte) = bytes.get_mut(from) {
                    *byte = driver.produce()?;
                }
            }
            1 => drop(bytes.drain(from..to)),
            2 => {
                let doubled = bytes[from..to].repeat(1 + below(driver, 4)?);
                bytes.splice(from..from, doubled);
            }
            3 => {
                let other = pick(driver, self.documents)?.as_bytes();
                let at = place(driver, other)?;
                let end = (at + below(driver, 200)?).min(other.len());
                bytes.splice(from..to, other[at..end].iter().copied());
            }
            4 => drop(bytes.splice(from..to, pick(driver, self.words)?.bytes())),
            _ => drop(bytes.splice(from..from, pick(driver, self.words)?.bytes())),
        }
        Some(())
    }
}

/// Where something is edited: anywhere, or behind a character after which grammars go on in a new way.
fn place<D: Driver>(driver: &mut D, bytes: &[u8]) -> Option<usize> {
    let is_turn = |at: &usize| bytes.get(at - 1).is_some_and(|byte| b"{[,:=\"\n/ ".contains(byte));
    let turns: Vec<usize> = (1..=bytes.len()).filter(is_turn).collect();
    if turns.is_empty() || driver.produce()? {
        below(driver, bytes.len() + 1)
    } else {
        pick(driver, &turns)
    }
}

/// A number below `end`, which is not 0.
pub(crate) fn below<D: Driver>(driver: &mut D, end: usize) -> Option<usize> {
    (0..end).generate(driver)
}

/// One of these.
pub(crate) fn pick<D: Driver, T: Copy>(driver: &mut D, from: &[T]) -> Option<T> {
    from.get(below(driver, from.len())?).copied()
}

/// A message that hostile text went into: one line of bounded length.
pub(crate) fn assert_fit_for_a_condition(message: &str) {
    assert!(message.len() <= 3 * 1024, "{} bytes", message.len());
    assert!(!message.contains(char::is_control), "{message:?}");
}
