//! Tracing and redaction.
//!
//! Promises: a panic prints where, never what; whatever looks like a secret of ours or of a provider is masked before it
//! reaches the log. SECURITY: the mask is the last defence and not the first; nothing may rely on it.

use std::{io, panic};

use tracing_subscriber::{
    EnvFilter, fmt::MakeWriter, layer::SubscriberExt as _, util::SubscriberInitExt as _,
};

mod redact;

pub use redact::redact;

/// How log lines look.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// One JSON object a line.
    Json,
    /// For people; coloured on a terminal.
    Human {
        /// Whether to colour.
        colour: bool,
    },
}

/// Logging could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum TelemetryError {
    /// The filter is not one.
    #[error("not a log filter")]
    Filter,
    /// Something else has set up logging in this process.
    #[error("logging is already set up")]
    Twice,
}

/// Sets up logging to standard error and the panic hook, once per process.
///
/// # Errors
/// When the filter is malformed or logging is already set up.
pub fn init(format: Format, filter: &str) -> Result<(), TelemetryError> {
    let filter = EnvFilter::builder()
        .parse(filter)
        .map_err(|_| TelemetryError::Filter)?;
    let registry = tracing_subscriber::registry().with(filter);
    let layer = tracing_subscriber::fmt::layer().with_writer(Redacting(io::stderr));
    match format {
        Format::Json => registry.with(layer.json().flatten_event(true)).try_init(),
        Format::Human { colour } => registry
            .with(layer.with_ansi(colour).with_target(false))
            .try_init(),
    }
    .map_err(|_| TelemetryError::Twice)?;
    quiet_panics();
    Ok(())
}

/// Replaces the panic hook: thread and location, never the payload, which may hold what the code held.
pub fn quiet_panics() {
    panic::set_hook(Box::new(|info| {
        let place = info
            .location()
            .map_or_else(|| "unknown".to_owned(), ToString::to_string);
        let thread = std::thread::current().name().unwrap_or("unnamed").to_owned();
        tracing::error!(
            panic.location = place,
            panic.thread = thread,
            "panicked at {place}"
        );
    }));
}

/// Masks every line on its way out. `tracing-subscriber` writes one whole line per call.
#[derive(Debug, Clone)]
struct Redacting<M>(M);

impl<'a, M: MakeWriter<'a>> MakeWriter<'a> for Redacting<M> {
    type Writer = RedactingWriter<M::Writer>;

    fn make_writer(&'a self) -> Self::Writer {
        RedactingWriter(self.0.make_writer())
    }
}

struct RedactingWriter<W>(W);

impl<W: io::Write> io::Write for RedactingWriter<W> {
    fn write(&mut self, line: &[u8]) -> io::Result<usize> {
        match std::str::from_utf8(line) {
            Ok(text) => self.0.write_all(redact(text).as_bytes())?,
            // Not text, so it cannot be masked, so it is not written.
            Err(_) => self.0.write_all(b"[a log line that was not text]\n")?,
        }
        Ok(line.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.flush()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};

    use super::*;

    #[derive(Clone, Default)]
    struct Captured(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Captured {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().unwrap().extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    impl<'a> MakeWriter<'a> for Captured {
        type Writer = Self;

        fn make_writer(&'a self) -> Self {
            self.clone()
        }
    }

    fn logged(json: bool, act: impl FnOnce()) -> String {
        let captured = Captured::default();
        let layer = tracing_subscriber::fmt::layer()
            .with_ansi(false)
            .with_writer(Redacting(captured.clone()));
        let registry = tracing_subscriber::registry();
        if json {
            tracing::subscriber::with_default(registry.with(layer.json()), act);
        } else {
            tracing::subscriber::with_default(registry.with(layer), act);
        }
        String::from_utf8(captured.0.lock().unwrap().clone()).unwrap()
    }

    #[test]
    fn a_key_in_a_field_or_message_is_masked_in_both_formats() {
        for json in [false, true] {
            let text = logged(json, || {
                tracing::info!(
                    header = "Bearer psa_canarycanary1",
                    "key psd_canarycanary2 and {}",
                    "psh_canarycanary3"
                );
            });
            assert!(!text.contains("canary") && text.contains("[redacted]"), "{text}");
        }
    }

    #[test]
    fn a_secret_in_a_debug_printed_body_is_masked_in_both_formats() {
        for json in [false, true] {
            let body = r#"{"refresh_token":"canary","ok":true}"#;
            let text = logged(json, || tracing::info!(body = ?body, "answer {body}"));
            assert!(!text.contains("canary"), "{text}");
        }
    }

    #[test]
    fn a_panic_prints_its_place_and_never_its_payload() {
        let before = panic::take_hook();
        quiet_panics();
        let text = logged(true, || {
            let _ = panic::catch_unwind(|| panic!("canary"));
        });
        panic::set_hook(before);
        assert!(text.contains("panicked at ") && text.contains(file!()), "{text}");
        assert!(!text.contains("canary"), "{text}");
    }

    #[test]
    fn an_ordinary_line_is_written_as_it_is() {
        let text = logged(false, || {
            tracing::info!(grant.id = "grt_00000000000000000000000001", "vended")
        });
        assert!(
            text.contains("grt_00000000000000000000000001") && !text.contains("[redacted]"),
            "{text}"
        );
    }
}
