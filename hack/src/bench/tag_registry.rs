//! A registry of one repository that has nothing but tags: their list, in pages as CNCF distribution answers them, ready-made
//! in memory. A real one would list a directory for each page, and what is to be measured is the controller.

use std::{
    fmt::Write as _,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicUsize, Ordering},
    },
};

use anyhow::Result;
use axum::{
    Router,
    extract::{Query, State},
    http::{StatusCode, header},
    response::{IntoResponse, Response},
    routing::get,
    serve::ListenerExt,
};
use bytes::Bytes;
use serde::Deserialize;
use tokio::{net::TcpListener, task::JoinHandle};

/// Tags in a page: as many as the controller asks for.
const PAGE: usize = 1000;
const REPOSITORY: &str = "bench/app";

/// A running one, over plain HTTP on loopback. It ends when this is dropped.
pub struct TagRegistry {
    address: String,
    state: Arc<Served>,
    task: JoinHandle<std::io::Result<()>>,
}

#[derive(Default)]
struct Served {
    /// The answers, in order.
    pages: Mutex<Arc<[Bytes]>>,
    lists: AtomicUsize,
    requests: AtomicUsize,
}

/// The page that a `Link` named; absent at first.
#[derive(Deserialize)]
struct Asked {
    #[serde(default)]
    page: usize,
}

impl TagRegistry {
    /// Starts it with these tags.
    pub async fn start(tags: &[String]) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?.to_string();
        let state = Arc::new(Served::default());
        let router = Router::new()
            .route(&format!("/v2/{REPOSITORY}/tags/list"), get(answer))
            .with_state(state.clone());
        let listener = listener.tap_io(|connection| {
            // Slower otherwise, and nothing else.
            let _ = connection.set_nodelay(true);
        });
        let registry = Self {
            address,
            state,
            task: tokio::spawn(async move { axum::serve(listener, router).await }),
        };
        registry.set(tags)?;
        Ok(registry)
    }

    /// What goes into `spec.image`.
    pub fn image(&self) -> String {
        format!("{}/{REPOSITORY}", self.address)
    }

    /// Replaces the tags: lists that begin from now on have these.
    pub fn set(&self, tags: &[String]) -> Result<()> {
        let mut tags: Vec<&str> = tags.iter().map(String::as_str).collect();
        tags.sort_unstable();
        let body = |page: &[&str]| {
            let document = serde_json::json!({"name": REPOSITORY, "tags": page});
            serde_json::to_vec(&document).map(Bytes::from)
        };
        let pages = tags.chunks(PAGE).map(body).collect::<Result<Arc<[_]>, _>>()?;
        *self.state.pages.lock().unwrap_or_else(PoisonError::into_inner) = pages;
        Ok(())
    }

    /// How many lists were begun, and how many requests there were, since it started.
    pub fn asked(&self) -> (usize, usize) {
        let count = |counter: &AtomicUsize| counter.load(Ordering::Relaxed);
        (count(&self.state.lists), count(&self.state.requests))
    }
}

impl Drop for TagRegistry {
    fn drop(&mut self) {
        self.task.abort();
    }
}

async fn answer(State(state): State<Arc<Served>>, Query(asked): Query<Asked>) -> Response {
    state.requests.fetch_add(1, Ordering::Relaxed);
    state.lists.fetch_add(usize::from(asked.page == 0), Ordering::Relaxed);
    let pages = state.pages.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let Some(body) = pages.get(asked.page) else {
        return StatusCode::NOT_FOUND.into_response();
    };
    let json = (header::CONTENT_TYPE, "application/json".to_owned());
    if asked.page + 1 == pages.len() {
        return ([json], body.clone()).into_response();
    }
    let mut link = format!("</v2/{REPOSITORY}/tags/list");
    let _ = write!(link, "?n={PAGE}&page={}>; rel=\"next\"", asked.page + 1);
    ([json, (header::LINK, link)], body.clone()).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn pages_lead_to_each_other_until_the_last() {
        crate::pki::install_provider();
        let tags: Vec<String> = (0..2500).map(|number| format!("{number:04}")).collect();
        let registry = TagRegistry::start(&tags).await.unwrap();
        let origin = format!("http://{}", registry.image().replace("/bench/app", ""));
        let (mut next, mut found) = (Some(format!("/v2/{REPOSITORY}/tags/list?n=1000")), Vec::new());
        while let Some(path) = next {
            let answer = reqwest::get(format!("{origin}{path}")).await.unwrap();
            let link = answer
                .headers()
                .get("link")
                .map(|link| link.to_str().unwrap().to_owned());
            next = link.and_then(|link| Some(link.strip_prefix('<')?.split_once('>')?.0.to_owned()));
            let page: serde_json::Value = answer.json().await.unwrap();
            let page = page["tags"].as_array().unwrap();
            found.extend(page.iter().map(|tag| tag.as_str().unwrap().to_owned()));
        }
        assert_eq!(found, tags);
        assert_eq!(registry.asked(), (1, 3));
    }
}
