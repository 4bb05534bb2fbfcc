//! What an ImageRepository knows of its image: the tags that a scan found, without the excluded ones, and when the next scan
//! is due. Everything but [`TagStore`] is pure; time is an argument.
//!
//! The pages of a registry go through a [`TagCollector`], which holds the tags once; the finished [`TagList`] goes to disk.
//! The tags of an object are its own, whoever else looks at the same image: what one may see, another may not.

mod collect;
mod due;
mod exclusions;
mod image;
mod list;
mod lists;
mod store;

pub use collect::{TagCollector, TooSlow};
pub use due::{Due, Reason, Wanted, due, shown_scan_time};
pub use exclusions::{ExclusionError, Exclusions};
pub use image::{ImageName, ImageNameError};
pub use list::TagList;
pub use lists::{OnRead, TagLists};
pub use store::{TagStore, TagStoreError};
