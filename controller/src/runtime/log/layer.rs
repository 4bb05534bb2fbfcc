//! One line per event, from the event's fields and those of the spans around it (inner ones win).

use std::{borrow::Cow, fmt, io::Write as _};

use serde::{Serializer as _, ser::SerializeMap as _};
use serde_json::Value;
use tracing::{
    Event, Level, Subscriber,
    field::{Field, Visit},
    span,
};
use tracing_subscriber::{Layer, fmt::MakeWriter, layer::Context, registry::LookupSpan};

use super::{LogEncoding, redact::redact};
use crate::runtime::supervise::chain;

pub(super) struct LineLayer<W> {
    encoding: LogEncoding,
    writer: W,
}

impl<W> LineLayer<W> {
    pub(super) const fn new(encoding: LogEncoding, writer: W) -> Self {
        Self { encoding, writer }
    }
}

impl<S, W> Layer<S> for LineLayer<W>
where
    S: Subscriber + for<'a> LookupSpan<'a>,
    W: for<'a> MakeWriter<'a> + 'static,
{
    fn on_new_span(&self, attributes: &span::Attributes<'_>, id: &span::Id, context: Context<'_, S>) {
        if let Some(span) = context.span(id) {
            let mut fields = Fields::default();
            attributes.record(&mut fields);
            span.extensions_mut().insert(fields);
        }
    }

    fn on_record(&self, id: &span::Id, values: &span::Record<'_>, context: Context<'_, S>) {
        if let Some(span) = context.span(id)
            && let Some(fields) = span.extensions_mut().get_mut::<Fields>()
        {
            values.record(fields);
        }
    }

    fn on_event(&self, event: &Event<'_>, context: Context<'_, S>) {
        let mut fields = Fields::default();
        for span in context
            .event_scope(event)
            .into_iter()
            .flat_map(tracing_subscriber::registry::Scope::from_root)
        {
            if let Some(of_span) = span.extensions().get::<Fields>() {
                for (key, value) in &of_span.values {
                    fields.set(key.clone(), value.clone());
                }
            }
        }
        event.record(&mut fields);
        let metadata = event.metadata();
        let line = Line {
            level: level(*metadata.level()),
            target: metadata.target(),
            fields: &fields,
        };
        let encoded = match self.encoding {
            LogEncoding::Json => line.json(),
            LogEncoding::Console => Ok(line.console()),
        };
        if let Ok(mut bytes) = encoded {
            bytes.push(b'\n');
            // A log that cannot be written has nowhere to be reported.
            let _ = self.writer.make_writer_for(metadata).write_all(&bytes);
        }
    }
}

const fn level(level: Level) -> &'static str {
    match level {
        Level::TRACE => "trace",
        Level::DEBUG => "debug",
        Level::INFO => "info",
        Level::WARN => "warn",
        Level::ERROR => "error",
    }
}

/// Fields in the order in which they were first recorded.
#[derive(Default)]
struct Fields {
    message: String,
    values: Vec<(Cow<'static, str>, Value)>,
}

impl Fields {
    fn set(&mut self, key: Cow<'static, str>, value: Value) {
        match self.values.iter_mut().find(|(known, _)| *known == key) {
            Some((_, slot)) => *slot = value,
            None => self.values.push((key, value)),
        }
    }

    fn record(&mut self, field: &Field, value: Value) {
        let name = field.name();
        match name.strip_prefix("r#").unwrap_or(name) {
            "message" => self.message = value.as_str().map_or_else(|| value.to_string(), ToOwned::to_owned),
            // A line has each of these once, and they are its own.
            "ts" | "level" | "msg" | "logger" => self.set(Cow::Owned(format!("field.{name}")), value),
            name => self.set(Cow::Borrowed(name), value),
        }
    }

    fn record_text(&mut self, field: &Field, text: &str) {
        self.record(field, Value::String(redact(text).into_owned()));
    }
}

impl Visit for Fields {
    fn record_debug(&mut self, field: &Field, value: &dyn fmt::Debug) {
        self.record_text(field, &format!("{value:?}"));
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_text(field, value);
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_text(field, &chain(value));
    }

    fn record_bool(&mut self, field: &Field, value: bool) {
        self.record(field, Value::Bool(value));
    }

    fn record_i64(&mut self, field: &Field, value: i64) {
        self.record(field, value.into());
    }

    fn record_u64(&mut self, field: &Field, value: u64) {
        self.record(field, value.into());
    }

    fn record_f64(&mut self, field: &Field, value: f64) {
        self.record(field, value.into());
    }
}

struct Line<'a> {
    level: &'static str,
    target: &'a str,
    fields: &'a Fields,
}

impl Line<'_> {
    fn json(&self) -> Result<Vec<u8>, serde_json::Error> {
        let mut bytes = Vec::with_capacity(256);
        let mut serializer = serde_json::Serializer::new(&mut bytes);
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("level", self.level)?;
        map.serialize_entry("ts", &timestamp())?;
        map.serialize_entry("msg", &self.fields.message)?;
        map.serialize_entry("logger", self.target)?;
        for (key, value) in &self.fields.values {
            map.serialize_entry(key, value)?;
        }
        map.end()?;
        Ok(bytes)
    }

    fn console(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(256);
        // Writing to a Vec does not fail. Escaping keeps a line a line.
        let message = self
            .fields
            .message
            .escape_debug()
            .to_string()
            .replace("\\'", "'")
            .replace("\\\"", "\"");
        let _ = write!(bytes, "{} {:5} {message}", timestamp(), self.level.to_uppercase());
        for (key, value) in &self.fields.values {
            let _ = match value
                .as_str()
                .filter(|text| !text.is_empty() && text.chars().all(is_plain))
            {
                Some(text) => write!(bytes, " {key}={text}"),
                None => write!(bytes, " {key}={value}"),
            };
        }
        bytes
    }
}

fn is_plain(character: char) -> bool {
    character.is_ascii_graphic() && !matches!(character, '"' | '=' | '\\')
}

/// RFC 3339 in UTC, with milliseconds.
fn timestamp() -> String {
    jiff::Timestamp::now().strftime("%Y-%m-%dT%H:%M:%S.%3fZ").to_string()
}
