//! The tag list of a repository (OCI distribution specification 1.1, "Content Discovery"), a page at a time.
//!
//! Whoever reads it holds one page; the scan itself remembers 64 bits of each tag, to notice a list that goes round in
//! circles. Pages, their number and all their bytes are bounded; a list beyond that fails rather than being cut, since the
//! newest version could be in the rest.

use std::{
    collections::{HashSet, hash_map::RandomState},
    fmt,
    hash::BuildHasher,
};

use http::Method;
use mintmark_api::reference::Tag;
use serde::{
    Deserialize, Deserializer,
    de::{DeserializeSeed, Error, SeqAccess, Visitor},
};
use url::Url;

use super::{
    error::{Failure, RegistryError},
    link,
    session::{Call, Retries, Session},
    url::Origin,
};

/// Tags asked for per page.
const PAGE_TAGS: &str = "n=1000";
/// Largest page, in bytes.
const PAGE_BYTES: u64 = 4 * 1024 * 1024;
/// Path of the list below `/v2/<repository>/`.
const PATH: &str = "tags/list";

/// One page: valid tags in the order of the registry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TagPage {
    /// Each followed by a line feed, which no tag has.
    text: String,
    dropped: usize,
}

impl TagPage {
    /// Its tags. One may have been on an earlier page too.
    pub fn iter(&self) -> impl Iterator<Item = &str> {
        self.text.lines()
    }

    /// Bytes of its tags, a line feed after each.
    pub fn size(&self) -> usize {
        self.text.len()
    }

    /// Entries that were left out because they are no tags.
    pub fn dropped(&self) -> usize {
        self.dropped
    }

    fn parse(body: &[u8]) -> Result<Self, Failure> {
        #[derive(Deserialize)]
        struct Document {
            #[serde(default, deserialize_with = "list")]
            tags: TagPage,
        }
        serde_json::from_slice(body)
            .map(|document: Document| document.tags)
            .map_err(|error| Failure::json("tag list", &error))
    }

    /// Takes an entry, or counts it as dropped.
    pub(crate) fn add(&mut self, entry: &str) {
        if Tag::is_valid(entry) {
            self.text.push_str(entry);
            self.text.push('\n');
        } else {
            self.dropped += 1;
        }
    }
}

/// Reads a list of texts, or null, without keeping the texts.
fn list<'de, D: Deserializer<'de>>(deserializer: D) -> Result<TagPage, D::Error> {
    struct List;
    impl<'de> Visitor<'de> for List {
        type Value = TagPage;

        fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
            f.write_str("a list of tags or null")
        }

        fn visit_unit<E: Error>(self) -> Result<TagPage, E> {
            Ok(TagPage::default())
        }

        fn visit_seq<A: SeqAccess<'de>>(self, mut entries: A) -> Result<TagPage, A::Error> {
            let mut page = TagPage::default();
            while entries.next_element_seed(Entry(&mut page))?.is_some() {}
            Ok(page)
        }
    }
    deserializer.deserialize_any(List)
}

/// One entry of the list, on its way into the page.
struct Entry<'a>(&'a mut TagPage);

impl<'de> DeserializeSeed<'de> for Entry<'_> {
    type Value = ();

    fn deserialize<D: Deserializer<'de>>(self, deserializer: D) -> Result<(), D::Error> {
        deserializer.deserialize_str(self)
    }
}

impl Visitor<'_> for Entry<'_> {
    type Value = ();

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a tag")
    }

    fn visit_str<E: Error>(self, entry: &str) -> Result<(), E> {
        self.0.add(entry);
        Ok(())
    }
}

/// A walk over the pages of one tag list.
pub struct TagScan<'a> {
    session: &'a mut Session,
    next: Next,
    pages: usize,
    bytes_left: u64,
    seen: HashSet<u64>,
    hasher: RandomState,
}

enum Next {
    /// The first page, with `n` unless the registry would not have it.
    First,
    /// What the page before named.
    Page(Url),
    End,
}

impl Session {
    /// The repository's tags. Asks for nothing yet.
    pub fn tags(&mut self) -> TagScan<'_> {
        TagScan {
            next: Next::First,
            pages: 0,
            bytes_left: self.client.config.tag_list_max_bytes,
            seen: HashSet::new(),
            hasher: RandomState::new(),
            session: self,
        }
    }
}

impl TagScan<'_> {
    /// The next page, none at the end. The end is where the registry names no next page, or where a page has no tag that was
    /// not on an earlier one. Nothing comes after an error.
    pub async fn next(&mut self) -> Result<Option<TagPage>, RegistryError> {
        let (page, target) = match std::mem::replace(&mut self.next, Next::End) {
            Next::End => return Ok(None),
            Next::First => self.first().await?,
            Next::Page(target) => self.fetch(Some(target)).await?,
        };
        self.session.client.config.observer.invalid_tags(page.dropped);
        self.pages += 1;
        // A list of one page cannot go round in circles.
        if (self.pages > 1 || target.is_some()) && !self.has_new(&page) {
            return Ok(None);
        }
        if let Some(target) = target {
            self.next = Next::Page(target);
        }
        Ok(Some(page))
    }

    /// Some registries refuse `n` with 400 or 405: they are asked again without.
    async fn first(&mut self) -> Result<(TagPage, Option<Url>), RegistryError> {
        let mut target = self
            .session
            .own_url(PATH)
            .map_err(|failure| self.session.error(&call(None), failure))?;
        target.set_query(Some(PAGE_TAGS));
        match self.fetch(Some(target)).await {
            Err(error) if matches!(error.failure(), Failure::UnexpectedStatus { status: 400 | 405 }) => {
                self.fetch(None).await
            }
            other => other,
        }
    }

    /// One page, and where the next one is.
    async fn fetch(&mut self, target: Option<Url>) -> Result<(TagPage, Option<Url>), RegistryError> {
        let call = call(target);
        let limit = self.session.client.config.tag_list_max_pages;
        if self.pages >= limit {
            return Err(self.session.error(&call, Failure::TooManyPages { limit }));
        }
        let mut retries = Retries::default();
        loop {
            self.session.enter().await;
            match self.try_fetch(&call).await {
                Ok(found) => return Ok(found),
                Err(failure) => self.session.wait(&mut retries, &call, failure).await?,
            }
        }
    }

    async fn try_fetch(&mut self, call: &Call) -> Result<(TagPage, Option<Url>), Failure> {
        let answer = self.session.send(call).await?;
        let next = next_page(answer.response.url(), answer.response.headers(), &self.session.origin)?;
        let body = self.session.body(answer);
        let read = body.read("page of the tag list", self.bytes_left.min(PAGE_BYTES)).await;
        let body = read.map_err(|failure| match failure {
            Failure::TooLarge { .. } if self.bytes_left < PAGE_BYTES => Failure::TooLarge {
                what: "tag list",
                limit: self.session.client.config.tag_list_max_bytes,
            },
            other => other,
        })?;
        let page = TagPage::parse(&body)?;
        self.bytes_left = self.bytes_left.saturating_sub(body.len() as u64);
        Ok((page, next))
    }

    /// Remembers the page's tags; whether one of them is new. The hash is keyed: nobody can make tags that look seen.
    fn has_new(&mut self, page: &TagPage) -> bool {
        let before = self.seen.len();
        self.seen.extend(page.iter().map(|tag| self.hasher.hash_one(tag)));
        self.seen.len() > before
    }
}

fn call(target: Option<Url>) -> Call {
    Call {
        method: Method::GET,
        path: PATH.to_owned(),
        accept: Some("application/json"),
        from: 0,
        target,
    }
}

/// Where an answer from `from` says the next page is; only on the registry's own origin, since the credential goes along.
fn next_page(from: &Url, headers: &http::HeaderMap, origin: &Origin) -> Result<Option<Url>, Failure> {
    let target = link::next(headers).map_err(|_| Failure::LinkRefused("its Link header cannot be read"))?;
    let Some(target) = target else {
        return Ok(None);
    };
    let mut target = from
        .join(&target)
        .map_err(|_| Failure::LinkRefused("its Link is not a URL"))?;
    if !target.username().is_empty() || target.password().is_some() {
        return Err(Failure::LinkRefused("its Link carries user information"));
    }
    if Origin::of(&target).as_ref() != Some(origin) {
        return Err(Failure::LinkRefused("its Link leads to another origin"));
    }
    target.set_fragment(None);
    Ok(Some(target))
}

#[cfg(test)]
mod tests {
    use rstest::rstest;

    use super::*;

    #[rstest]
    #[case::some(r#"{"name":"a","tags":["v1","latest"]}"#, &["v1", "latest"], 0)]
    #[case::null(r#"{"name":"a","tags":null}"#, &[], 0)]
    #[case::absent(r#"{"name":"a"}"#, &[], 0)]
    #[case::invalid(r#"{"tags":["","-a","a b","a\nb","\u00e4","v1"]}"#, &["v1"], 5)]
    #[case::escaped(r#"{"tags":["\u0076\u0031"]}"#, &["v1"], 0)]
    fn pages(#[case] body: &str, #[case] tags: &[&str], #[case] dropped: usize) {
        let page = TagPage::parse(body.as_bytes()).unwrap();
        assert_eq!(page.iter().collect::<Vec<_>>(), tags);
        assert_eq!(page.dropped(), dropped);
    }

    #[rstest]
    #[case::web_page("<html>")]
    #[case::number(r#"{"tags":[1]}"#)]
    #[case::text(r#"{"tags":"v1"}"#)]
    #[case::list(r#"["v1"]"#)]
    #[case::twice(r#"{"tags":["v1"],"tags":["v2"]}"#)]
    #[case::cut(r#"{"tags":["v1""#)]
    fn no_page(#[case] body: &str) {
        assert!(matches!(TagPage::parse(body.as_bytes()), Err(Failure::Invalid(_))));
    }

    #[rstest]
    #[case::relative("?last=b", Ok("https://r.example/v2/a/tags/list?last=b"))]
    #[case::absolute_path("/v2/a/tags/list?last=b#x", Ok("https://r.example/v2/a/tags/list?last=b"))]
    #[case::whole("https://R.example:443/next", Ok("https://r.example/next"))]
    #[case::other_host("https://other.example/v2/a/tags/list", Err("another origin"))]
    #[case::network_path("//other.example/v2/a/tags/list", Err("another origin"))]
    #[case::other_scheme("http://r.example/v2/a/tags/list", Err("another origin"))]
    #[case::other_port("https://r.example:8443/v2/a/tags/list", Err("another origin"))]
    #[case::no_web("data:text/plain,x", Err("another origin"))]
    #[case::user("https://u:p@r.example/v2/a/tags/list", Err("user information"))]
    #[case::no_url("https://[", Err("not a URL"))]
    fn links(#[case] target: &str, #[case] expected: Result<&str, &str>) {
        let from = Url::parse("https://r.example/v2/a/tags/list?n=1000").unwrap();
        let headers = [(http::header::LINK, format!("<{target}>; rel=\"next\"").parse().unwrap())];
        let found = next_page(&from, &headers.into_iter().collect(), &Origin::of(&from).unwrap());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found.unwrap().as_str(), expected),
            (Err(failure), Err(expected)) => assert!(failure.to_string().ends_with(expected), "{failure}"),
            (found, _) => panic!("{found:?}"),
        }
    }
}
