//! I12: a database that cannot be written to releases nothing, says so, and is no reason to start anew.

use serde_json::json;

use crate::process::Dev;

/// No file of the process may grow or be written any more: what a full disk is, to a process of any rights.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vend_whose_entry_cannot_be_written_releases_nothing() {
    let dev = Dev::start();
    dev.connect().await;
    for mode in ["execute", "token"] {
        let ask = json!({"mode": mode});
        let (status, answer) = dev.read(&ask).await;
        assert_eq!(status, 200, "{answer}");
        let (before, releases) = (dev.seen("api").await, dev.releases().await);

        dev.forbid_writing();
        let (status, answer) = dev.read(&ask).await;
        assert_eq!(
            (status, &answer["code"]),
            (503, &json!("store_unavailable")),
            "{answer}"
        );
        assert!(answer["access_token"].is_null());
        assert_eq!(dev.seen("api").await, before, "{mode}: something was sent");

        dev.allow_writing();
        assert_eq!(dev.releases().await, releases, "{mode}: something was recorded");
        let (status, answer) = dev.read(&ask).await;
        assert_eq!(status, 200, "it works again: {answer}");
    }
}
