//! What a problem of the API means, for whoever follows its `type`: no frame, no session, the same for everybody.

use askama::Template;

/// `/problems/{code}`.
#[derive(Debug, Clone, Copy, Template)]
#[template(
    ext = "html",
    source = r#"<!doctype html>
<html lang="en">
<head><meta charset="utf-8"><meta name="viewport" content="width=device-width, initial-scale=1">
<meta name="color-scheme" content="light dark"><title>{{ title }}</title></head>
<body><main>
<h1>{{ title }}</h1>
<p><code>{{ code }}</code>, HTTP {{ status }}</p>
<h2>What it means</h2><p>{{ meaning }}</p>
<h2>What to do</h2><p>{{ remedy }}</p>
</main></body>
</html>
"#
)]
pub struct ProblemPage {
    /// The stable code.
    pub code: &'static str,
    /// The status it comes with.
    pub status: u16,
    /// In a few words.
    pub title: &'static str,
    /// What happened.
    pub meaning: &'static str,
    /// What helps.
    pub remedy: &'static str,
}
