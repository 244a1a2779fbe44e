//! What the digests of bindings and tools cover.

use super::{
    super::digest::{binding, tool_digest},
    *,
};

#[test]
fn binding_and_tool_digest_change_with_what_they_cover_and_only_then() {
    let slack = connector("slack");
    let none = Vars::new();
    let bound = binding(&slack, &none).unwrap();
    let tool = |connector: &Connector, name: &str| {
        tool_digest(
            connector,
            Tool::find(connector, name).unwrap(),
            &binding(connector, &none).unwrap(),
        )
        .unwrap()
    };
    let digest = tool(&slack, "chat.postMessage");
    assert!(digest.starts_with("sha256:") && digest.len() == 71);
    assert_ne!(digest, tool(&slack, "chat.update"));

    let mut renamed = (*slack).clone();
    renamed.name = "Slack!".to_owned();
    assert_eq!(binding(&renamed, &none).unwrap(), bound);
    assert_eq!(tool(&renamed, "chat.postMessage"), digest);

    let mut moved = (*slack).clone();
    moved.api.hosts.push("evil.example".to_owned());
    assert_ne!(binding(&moved, &none).unwrap(), bound);
    assert_ne!(tool(&moved, "chat.postMessage"), digest);
    assert_ne!(tool(&moved, "http.request"), tool(&slack, "http.request"));

    let mut changed = (*slack).clone();
    changed.actions[3].summary.push('!');
    assert_eq!(binding(&changed, &none).unwrap(), bound);
    assert_ne!(tool(&changed, "chat.postMessage"), digest);
}

#[test]
fn the_catalogue_knows_the_digests_of_its_tools_under_its_own_binding_only() {
    let catalogue = catalogue();
    for connector in catalogue.iter() {
        let bound = binding(connector, &Vars::new()).unwrap();
        assert_eq!(catalogue.binding(&connector.id), Some(bound));
        let typed = connector.actions.iter().map(|action| action.name.as_str());
        for name in typed.chain(["http.request"]) {
            let digest = Tool::find(connector, name).and_then(|tool| tool_digest(connector, tool, &bound));
            assert_eq!(
                catalogue.tool_digest(&connector.id, name, &bound),
                digest.as_deref()
            );
            assert_eq!(catalogue.tool_digest(&connector.id, name, &[0; 32]), None);
        }
        assert_eq!(catalogue.tool_digest(&connector.id, "no.such", &bound), None);
    }
}
