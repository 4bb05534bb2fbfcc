//! Which layer of a manifest is the artifact. Pure: it works on whatever type holds a layer's descriptor.

/// Why no layer could be selected. The texts are Flux's, which alerts match on.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum LayerError {
    /// The manifest has no layer at all.
    #[error("no layers found in artifact")]
    NoLayers,
    /// No layer has the media type of `spec.layerSelector.mediaType`.
    #[error("failed to find layer with media type '{0}' in artifact")]
    NoSuchMediaType(String),
}

/// The first layer whose media type equals `wanted`, or simply the first when `wanted` is absent or empty.
pub fn select_layer<'a, L>(
    layers: &'a [L],
    wanted: Option<&str>,
    media_type_of: impl Fn(&L) -> &str,
) -> Result<&'a L, LayerError> {
    let first = layers.first().ok_or(LayerError::NoLayers)?;
    match wanted.filter(|wanted| !wanted.is_empty()) {
        None => Ok(first),
        Some(wanted) => layers
            .iter()
            .find(|layer| media_type_of(layer) == wanted)
            .ok_or_else(|| LayerError::NoSuchMediaType(wanted.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pick<'a>(layers: &'a [&'a str], wanted: Option<&str>) -> Result<&'a &'a str, LayerError> {
        select_layer(layers, wanted, |layer| layer.split(':').next().unwrap_or_default())
    }

    #[test]
    fn first_layer_without_a_selector() {
        assert_eq!(pick(&["a:1", "b:2"], None), Ok(&"a:1"));
        assert_eq!(pick(&["a:1", "b:2"], Some("")), Ok(&"a:1"));
    }

    #[test]
    fn first_layer_of_the_media_type() {
        assert_eq!(pick(&["a:1", "b:2", "b:3"], Some("b")), Ok(&"b:2"));
    }

    #[test]
    fn misses_have_the_texts_of_flux() {
        assert_eq!(pick(&[], None).unwrap_err().to_string(), "no layers found in artifact");
        assert_eq!(
            pick(&[], Some("b")).unwrap_err().to_string(),
            "no layers found in artifact"
        );
        let missing = pick(&["a:1"], Some("text/x")).unwrap_err().to_string();
        assert_eq!(missing, "failed to find layer with media type 'text/x' in artifact");
    }
}
