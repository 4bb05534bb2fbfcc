//! The two Secrets of the key ring as they stand in the API server: read and replaced by name, with the resourceVersion
//! that was read as the precondition. Needs get and update on both, never create: whoever installs the product creates
//! them. Every answer also shows the API server's clock.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use http_body_util::BodyExt;
use k8s_openapi::{ByteString, api::core::v1::Secret};
use kube::{
    Client, Resource,
    api::{GetParams, PostParams},
    client::Body,
    core::Request,
};
use zeroize::{Zeroize, Zeroizing};

use super::ServerClock;

/// How long one request may take: the API server answers a GET of one object in milliseconds.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(10);

/// One of the two Secrets.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Which {
    /// Public state and documents.
    State,
    /// Private keys.
    Ring,
}

impl Which {
    /// The Secret's name, in the controller's namespace.
    pub const fn name(self) -> &'static str {
        match self {
            Self::State => "mintmark-issuer",
            Self::Ring => "mintmark-issuer-ring",
        }
    }
}

/// The data of a Secret, wiped when it is dropped.
pub type SecretData = BTreeMap<String, Zeroizing<Vec<u8>>>;

/// A Secret as it was read or written last.
#[derive(Debug, Clone, Default)]
pub struct Held {
    /// Everything but the data: labels, annotations and type are kept when the data is replaced.
    pub frame: Secret,
    /// Its data.
    pub data: SecretData,
}

impl Held {
    /// The version that a replacement names as its precondition.
    pub fn version(&self) -> Option<&str> {
        self.frame.metadata.resource_version.as_deref()
    }
}

/// Why a Secret could not be read or replaced.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IoError {
    /// There is no such Secret: apply the empty one that is shipped.
    #[error("Secret {0} does not exist; `kubectl apply -k config/state` makes the empty one")]
    Missing(&'static str),
    /// Somebody else wrote it meanwhile: read it again.
    #[error("Secret {0} was changed by somebody else")]
    Conflict(&'static str),
    /// The API server refused, and will do so until a right or a policy changes.
    #[error("Secret {name}: the API server answered {code}: {message}")]
    Refused {
        /// The Secret.
        name: &'static str,
        /// The HTTP status.
        code: u16,
        /// The API server's words.
        message: String,
    },
    /// No answer, or none that says what happened: a write may have been made.
    #[error("Secret {name}: the API server cannot be asked: {message}")]
    Unreachable {
        /// The Secret.
        name: &'static str,
        /// What is known of it.
        message: String,
    },
}

impl IoError {
    /// The label of the counter of failures.
    pub const fn label(&self) -> &'static str {
        match self {
            Self::Missing(_) => "missing",
            Self::Conflict(_) => "conflict",
            Self::Refused { .. } => "refused",
            Self::Unreachable { .. } => "unreachable",
        }
    }
}

/// Reads and replaces the two Secrets.
pub trait SecretIo: Send + Sync + 'static {
    /// What the Secret holds now.
    fn get(&self, which: Which) -> impl Future<Output = Result<Held, IoError>> + Send;

    /// Replaces the data if the Secret is still at `frame`'s version; answers what stands there now.
    fn put(&self, which: Which, frame: Secret, data: SecretData) -> impl Future<Output = Result<Held, IoError>> + Send;
}

/// The Secrets of one namespace in an API server.
pub struct KubeSecrets {
    client: Client,
    namespace: String,
    clock: Arc<ServerClock>,
}

impl KubeSecrets {
    /// The Secrets of `namespace`; `clock` learns the API server's time from every answer.
    pub fn new(client: Client, namespace: String, clock: Arc<ServerClock>) -> Self {
        Self {
            client,
            namespace,
            clock,
        }
    }

    fn requests(&self) -> Request {
        Request::new(Secret::url_path(&(), Some(&self.namespace)))
    }

    async fn send(
        &self,
        which: Which,
        request: Result<http::Request<Vec<u8>>, impl std::error::Error>,
    ) -> Result<Held, IoError> {
        let name = which.name();
        let unreachable = |message: String| IoError::Unreachable { name, message };
        let request = request.map_err(|error| unreachable(error.to_string()))?;
        let exchange = async {
            let response = self
                .client
                .send(request.map(Body::from))
                .await
                .map_err(|error| error.to_string())?;
            self.clock.observe(response.headers());
            let status = response.status();
            let body = response
                .into_body()
                .collect()
                .await
                .map_err(|error| error.to_string())?;
            Ok::<_, String>((status, body.to_bytes()))
        };
        let (status, body) = tokio::time::timeout(REQUEST_TIMEOUT, exchange)
            .await
            .map_err(|_| unreachable(format!("no answer within {} s", REQUEST_TIMEOUT.as_secs())))?
            .map_err(unreachable)?;
        let result = read_answer(name, status, &body);
        if let Ok(mut body) = body.try_into_mut() {
            body.zeroize();
        }
        result
    }
}

impl SecretIo for KubeSecrets {
    async fn get(&self, which: Which) -> Result<Held, IoError> {
        let request = self.requests().get(which.name(), &GetParams::default());
        self.send(which, request).await
    }

    async fn put(&self, which: Which, frame: Secret, data: SecretData) -> Result<Held, IoError> {
        let mut secret = frame;
        let encode = |(key, value): (String, Zeroizing<Vec<u8>>)| (key, ByteString(value.to_vec()));
        secret.data = Some(data.into_iter().map(encode).collect());
        let body = serde_json::to_vec(&secret).map_err(|error| IoError::Unreachable {
            name: which.name(),
            message: error.to_string(),
        });
        wipe(&mut secret);
        self.send(
            which,
            self.requests().replace(which.name(), &PostParams::default(), body?),
        )
        .await
    }
}

/// What an answer says: the Secret, or why not.
fn read_answer(name: &'static str, status: http::StatusCode, body: &[u8]) -> Result<Held, IoError> {
    let unreadable = |message: String| IoError::Unreachable { name, message };
    if status.is_success() {
        let secret: Secret = serde_json::from_slice(body).map_err(|error| unreadable(error.to_string()))?;
        return Ok(held(secret));
    }
    let answer: Option<kube::core::Status> = serde_json::from_slice(body).ok();
    let message = answer.map_or_else(|| status.to_string(), |status| status.message);
    Err(match status.as_u16() {
        404 => IoError::Missing(name),
        409 => IoError::Conflict(name),
        // Too many requests, and errors of the server: the next try may do.
        429 | 500.. => unreadable(message),
        code => IoError::Refused { name, code, message },
    })
}

fn held(mut secret: Secret) -> Held {
    let data = secret.data.take().unwrap_or_default();
    // The API server keeps what it is not told about.
    secret.metadata.managed_fields = None;
    Held {
        frame: secret,
        data: data
            .into_iter()
            .map(|(key, value)| (key, Zeroizing::new(value.0)))
            .collect(),
    }
}

fn wipe(secret: &mut Secret) {
    for value in secret.data.iter_mut().flat_map(BTreeMap::values_mut) {
        value.0.zeroize();
    }
}

#[cfg(test)]
mod tests {
    use http::StatusCode;

    use super::*;

    #[test]
    fn an_answer_without_a_decision_leaves_a_write_open() {
        let of = |status, body: &str| read_answer("s", status, body.as_bytes()).unwrap_err().label();
        assert_eq!(of(StatusCode::NOT_FOUND, ""), "missing");
        assert_eq!(of(StatusCode::CONFLICT, ""), "conflict");
        assert_eq!(of(StatusCode::FORBIDDEN, ""), "refused");
        assert_eq!(of(StatusCode::UNPROCESSABLE_ENTITY, ""), "refused");
        assert_eq!(of(StatusCode::TOO_MANY_REQUESTS, ""), "unreachable");
        assert_eq!(of(StatusCode::SERVICE_UNAVAILABLE, ""), "unreachable");
        assert_eq!(of(StatusCode::OK, "<html>"), "unreachable");
    }

    #[test]
    fn the_frame_keeps_what_is_not_ours_and_no_data() {
        let body = r#"{"metadata": {"name": "s", "resourceVersion": "7", "labels": {"a": "b"}, "managedFields": []},
                       "type": "Opaque", "data": {"k": "dg=="}}"#;
        let held = read_answer("s", StatusCode::OK, body.as_bytes()).unwrap();
        assert_eq!(held.version(), Some("7"));
        assert_eq!(held.data.get("k").map(|value| value.as_slice()), Some(b"v".as_slice()));
        assert_eq!(held.frame.data, None);
        assert_eq!(held.frame.type_.as_deref(), Some("Opaque"));
        assert_eq!(held.frame.metadata.labels.map(|labels| labels.len()), Some(1));
    }
}
