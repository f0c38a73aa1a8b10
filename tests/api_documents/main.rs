//! The API documents are whole, their examples are right, and code and documents say the same.

mod answers;
mod document;
mod messages;
mod routes;

use document::Document;
use serde_json::Value;
use std::collections::BTreeSet;

#[test]
fn every_reference_resolves() {
    for document in [Document::openapi(), Document::asyncapi()] {
        let mut seen = 0;
        document.walk(&mut |place, value| {
            let Some(target) = value.get("$ref").and_then(Value::as_str) else {
                return;
            };
            seen += 1;
            let pointer = target
                .strip_prefix('#')
                .unwrap_or_else(|| panic!("{place}: {target} leaves the document"));
            assert!(
                document.root().pointer(pointer).is_some(),
                "{place}: {target} leads nowhere"
            );
        });
        assert!(seen > 20, "only {seen} references");
    }
}

#[test]
fn every_component_is_used() {
    for document in [Document::openapi(), Document::asyncapi()] {
        let mut used = BTreeSet::new();
        document.walk(&mut |_, value| used.extend(value.get("$ref").and_then(Value::as_str).map(str::to_owned)));
        for (kind, components) in document.object("/components") {
            for name in components.as_object().unwrap().keys() {
                let target = format!("#/components/{kind}/{name}");
                // The line of the event stream is named in words: its media type has no schema of its own.
                assert!(
                    used.contains(&target) || target.ends_with("/Event"),
                    "nothing refers to {target}"
                );
            }
        }
    }
}

/// By the types of a library that is not ours.
#[test]
fn openapi_is_openapi() {
    let spec = oas3::from_json(dispatchd::ops::spec::OPENAPI_JSON).unwrap();
    spec.validate_version().unwrap();
    assert_eq!(spec.info.version, env!("CARGO_PKG_VERSION"));
    let mut operation_ids = BTreeSet::new();
    for (path, method, operation) in spec.operations() {
        let id = operation
            .operation_id
            .clone()
            .unwrap_or_else(|| panic!("{method} {path} has no operationId"));
        assert!(
            operation_ids.insert(id),
            "{method} {path}: its operationId is there twice"
        );
        assert!(
            operation.summary.is_some() && operation.tags.len() == 1,
            "{method} {path}"
        );
        let responses = operation.responses(&spec);
        assert!(
            responses.keys().any(|status| status.starts_with(['1', '2'])),
            "{method} {path} never succeeds"
        );
        assert!(responses.contains_key("default"), "{method} {path}");
        let declared: BTreeSet<String> = operation
            .parameters(&spec)
            .unwrap()
            .into_iter()
            .map(|each| each.name)
            .collect();
        for part in path.split('/').filter_map(|part| part.strip_prefix('{')) {
            assert!(
                declared.contains(part.trim_end_matches('}')),
                "{method} {path} does not declare {part}"
            );
        }
    }
    assert_eq!(operation_ids.len(), 17);
}

#[test]
fn asyncapi_has_its_shape() {
    let document = Document::asyncapi();
    assert_eq!(document.root()["asyncapi"], "3.0.0");
    assert_eq!(document.root()["info"]["version"], env!("CARGO_PKG_VERSION"));
    let messages: BTreeSet<&String> = document.object("/channels/driver/messages").keys().collect();
    let mut in_operations = BTreeSet::new();
    for (name, operation) in document.object("/operations") {
        assert!(
            matches!(operation["action"].as_str(), Some("send" | "receive")),
            "{name}"
        );
        for message in operation["messages"].as_array().unwrap() {
            let target = message["$ref"].as_str().unwrap();
            in_operations.extend(target.strip_prefix("#/channels/driver/messages/"));
        }
        assert_eq!(operation["channel"]["$ref"], "#/channels/driver", "{name}");
    }
    in_operations.extend(["pong", "declined", "confirmed", "error"]); // only ever replies
    assert!(
        messages.iter().all(|message| in_operations.contains(message.as_str())),
        "{messages:?} {in_operations:?}"
    );
}

#[test]
fn every_example_fits_its_schema() {
    let document = Document::openapi();
    let mut checked = 0;
    document.walk(&mut |place, value| {
        if value.get("schema").is_none() || place.contains("/examples/") {
            return;
        }
        let named = value.get("examples").and_then(Value::as_object).into_iter().flatten();
        let named = named.map(|(_, example)| &example["value"]);
        for example in named.chain(value.get("example")) {
            checked += 1;
            document.check(&format!("{place}/schema"), example);
        }
    });
    assert!(checked > 40, "only {checked} examples");

    let document = Document::asyncapi();
    for (name, message) in document.object("/components/messages") {
        let examples = message["examples"].as_array().unwrap();
        assert!(!examples.is_empty(), "{name} has no example");
        for example in examples {
            document.check_exactly(&format!("/components/messages/{name}/payload"), &example["payload"]);
        }
    }
}

#[test]
fn every_json_body_has_an_example() {
    let document = Document::openapi();
    document.walk(&mut |place, value| {
        let Some(content) = value.get("content").and_then(Value::as_object) else {
            return;
        };
        for media in content.values() {
            let free = media["schema"]["type"] == "object" && media["schema"].get("properties").is_none();
            assert!(free || media.get("examples").is_some(), "{place} has no example");
        }
    });
}
