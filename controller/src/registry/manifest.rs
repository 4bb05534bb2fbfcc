//! Image manifests and indexes (OCI image specification 1.1, Docker schema 2): reading them strictly, choosing a child.
//!
//! Pure: bytes and a `Content-Type` in, a [`ResolvedManifest`] or the choice of a child out. A document that can be read as
//! two kinds is refused (CVE-2021-41190); descriptor `urls` are ignored.

use std::collections::BTreeMap;

use mintmark_api::digest::Digest;
use oci_distribution::manifest::{
    IMAGE_MANIFEST_LIST_MEDIA_TYPE, IMAGE_MANIFEST_MEDIA_TYPE, ImageIndexEntry, OCI_IMAGE_INDEX_MEDIA_TYPE,
    OCI_IMAGE_MEDIA_TYPE, OciDescriptor, OciImageIndex, OciImageManifest,
};
use serde::{Deserialize, de::IgnoredAny};

use super::error::{Failure, InvalidContent, sanitise};

/// `Accept` of every manifest request.
pub(super) const ACCEPT: &str = "application/vnd.oci.image.manifest.v1+json, application/vnd.oci.image.index.v1+json, \
     application/vnd.docker.distribution.manifest.v2+json, application/vnd.docker.distribution.manifest.list.v2+json";

/// Types that say nothing about the content, as plain file servers send them.
const UNSPECIFIC: [&str; 3] = ["application/json", "application/octet-stream", "text/plain"];

/// Points to a blob: its type, digest and size in bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Descriptor {
    /// Media type as the manifest says.
    pub media_type: String,
    /// Digest of the content.
    pub digest: Digest,
    /// Size in bytes.
    pub size: u64,
}

/// The manifest of an image: of the revision itself, or of the child chosen from its index.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ResolvedManifest {
    /// The digest that was asked for: the revision, also when it is an index.
    pub revision: Digest,
    /// The digest of this manifest; differs from `revision` when that is an index.
    pub digest: Digest,
    /// Media type of this manifest.
    pub media_type: String,
    /// `artifactType`, else the config's media type.
    pub artifact_type: String,
    /// Layers in order.
    pub layers: Vec<Descriptor>,
    /// Annotations of this manifest.
    pub annotations: BTreeMap<String, String>,
}

/// What a manifest document turned out to be.
#[derive(Debug)]
pub(super) enum Document {
    Image(Box<OciImageManifest>),
    Index(OciImageIndex),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Image,
    Index,
}

/// Which fields a document has, whatever is in them.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Shape {
    schema_version: Option<u64>,
    media_type: Option<String>,
    config: Option<IgnoredAny>,
    layers: Option<IgnoredAny>,
    manifests: Option<IgnoredAny>,
}

/// Reads a manifest document that came with this `Content-Type`.
pub(super) fn parse(bytes: &[u8], content_type: Option<&str>) -> Result<Document, Failure> {
    let declared = content_type.map(|text| text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase());
    let declared = declared.filter(|text| !text.is_empty() && !UNSPECIFIC.contains(&text.as_str()));
    if let Some(text) = declared.as_deref().filter(|text| kind_of(text).is_none()) {
        return Err(InvalidContent::ContentType(sanitise(text)).into());
    }
    let shape: Shape = serde_json::from_slice(bytes).map_err(|error| Failure::json("manifest", &error))?;
    match kind(&shape, declared.as_deref())? {
        Kind::Image => serde_json::from_slice(bytes).map(|image| Document::Image(Box::new(image))),
        Kind::Index => serde_json::from_slice(bytes).map(Document::Index),
    }
    .map_err(|error| Failure::json("manifest", &error))
}

fn kind_of(media_type: &str) -> Option<Kind> {
    match media_type {
        OCI_IMAGE_MEDIA_TYPE | IMAGE_MANIFEST_MEDIA_TYPE => Some(Kind::Image),
        OCI_IMAGE_INDEX_MEDIA_TYPE | IMAGE_MANIFEST_LIST_MEDIA_TYPE => Some(Kind::Index),
        _ => None,
    }
}

fn kind(shape: &Shape, content_type: Option<&str>) -> Result<Kind, InvalidContent> {
    let contradiction = |text: String| Err(InvalidContent::Contradiction(text));
    let media_type = shape.media_type.as_deref();
    if let (Some(inside), Some(outside)) = (media_type, content_type)
        && inside != outside
    {
        return contradiction(format!(
            "mediaType is {}, Content-Type is {}",
            sanitise(inside),
            sanitise(outside)
        ));
    }
    if shape.schema_version != Some(2) {
        return contradiction("schemaVersion is not 2".to_owned());
    }
    let like_image = shape.config.is_some() || shape.layers.is_some();
    let by_fields = match (like_image, shape.manifests.is_some()) {
        (true, true) => return contradiction("it has the fields of an image and of an index".to_owned()),
        (true, false) => Kind::Image,
        (false, true) => Kind::Index,
        (false, false) => return contradiction("it has neither layers nor manifests".to_owned()),
    };
    match media_type.or(content_type).map(|text| (text, kind_of(text))) {
        None => Ok(by_fields),
        Some((_, Some(named))) if named == by_fields => Ok(named),
        Some((text, Some(_))) => contradiction(format!("its fields are not those of {}", sanitise(text))),
        Some((text, None)) => Err(InvalidContent::ContentType(sanitise(text))),
    }
}

/// The child for us: `linux/amd64`, else the only one.
pub(super) fn choose(index: &OciImageIndex) -> Result<Descriptor, InvalidContent> {
    let ours = |entry: &&ImageIndexEntry| {
        entry
            .platform
            .as_ref()
            .is_some_and(|platform| platform.os.to_string() == "linux" && platform.architecture.to_string() == "amd64")
    };
    let only = || {
        if let [entry] = index.manifests.as_slice() {
            Some(entry)
        } else {
            None
        }
    };
    let entry = index
        .manifests
        .iter()
        .find(ours)
        .or_else(only)
        .ok_or(InvalidContent::NoChild)?;
    if kind_of(&entry.media_type) == Some(Kind::Index) {
        return Err(InvalidContent::NestedIndex);
    }
    descriptor(&entry.media_type, &entry.digest, entry.size)
}

/// The image as the rest of the controller sees it.
pub(super) fn resolve(
    image: OciImageManifest,
    revision: Digest,
    digest: Digest,
) -> Result<ResolvedManifest, InvalidContent> {
    let layer = |layer: &OciDescriptor| descriptor(&layer.media_type, &layer.digest, layer.size);
    Ok(ResolvedManifest {
        revision,
        digest,
        media_type: image.media_type.unwrap_or_else(|| OCI_IMAGE_MEDIA_TYPE.to_owned()),
        artifact_type: image.artifact_type.unwrap_or(image.config.media_type),
        layers: image.layers.iter().map(layer).collect::<Result<_, _>>()?,
        annotations: image.annotations.unwrap_or_default(),
    })
}

fn descriptor(media_type: &str, digest: &str, size: i64) -> Result<Descriptor, InvalidContent> {
    Ok(Descriptor {
        media_type: media_type.to_owned(),
        digest: Digest::parse(digest).map_err(|_| InvalidContent::Descriptor("digest"))?,
        size: u64::try_from(size).map_err(|_| InvalidContent::Descriptor("size"))?,
    })
}
