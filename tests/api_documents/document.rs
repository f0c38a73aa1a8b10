//! A document with its schemas, which are judged by a library that is not ours.

use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

pub struct Document(Value);

impl Document {
    pub fn openapi() -> Self {
        Self(serde_json::from_str(dispatchd::ops::spec::OPENAPI_JSON).unwrap())
    }

    pub fn asyncapi() -> Self {
        Self(serde_json::from_str(dispatchd::ops::spec::ASYNCAPI_JSON).unwrap())
    }

    pub fn root(&self) -> &Value {
        &self.0
    }

    pub fn object(&self, pointer: &str) -> &Map<String, Value> {
        let value = self
            .0
            .pointer(pointer)
            .unwrap_or_else(|| panic!("nothing at {pointer}"));
        value.as_object().unwrap_or_else(|| panic!("no object at {pointer}"))
    }

    /// Every value with its JSON pointer, parents first.
    pub fn walk(&self, visit: &mut dyn FnMut(&str, &Value)) {
        walk(&self.0, "", visit);
    }

    /// `instance` fits the schema at `pointer`.
    pub fn check(&self, pointer: &str, instance: &Value) {
        if let Err(error) = self.validate(pointer, instance) {
            panic!("{pointer}: {error}\n{instance:#}");
        }
    }

    /// `instance` fits the schema at `pointer`, which names all members that it has.
    pub fn check_exactly(&self, pointer: &str, instance: &Value) {
        self.check(pointer, instance);
        let mut declared = BTreeSet::new();
        self.collect_members(self.0.pointer(pointer).unwrap(), instance, &mut declared);
        for member in instance.as_object().into_iter().flatten().map(|(member, _)| member) {
            assert!(
                declared.contains(member),
                "{pointer} does not name {member}\n{instance:#}"
            );
        }
    }

    /// Whether, and if not why, `instance` does not fit the schema at `pointer`.
    pub fn validate(&self, pointer: &str, instance: &Value) -> Result<(), String> {
        assert!(self.0.pointer(pointer).is_some(), "no schema at {pointer}");
        // The document is its own schema with one entrance, so that references inside it resolve.
        let mut schema = self.0.clone();
        let fragment = pointer.replace('{', "%7B").replace('}', "%7D");
        schema["$schema"] = json!("https://json-schema.org/draft/2020-12/schema");
        schema["$ref"] = json!(format!("#{fragment}"));
        let options = jsonschema::options().should_validate_formats(true);
        let validator = options
            .build(&schema)
            .unwrap_or_else(|error| panic!("{pointer}: {error}"));
        let errors: Vec<String> = validator.iter_errors(instance).map(|error| error.to_string()).collect();
        if errors.is_empty() {
            Ok(())
        } else {
            Err(errors.join("; "))
        }
    }

    /// Names of the members that `schema` declares for `instance`; of alternatives, those of the fitting ones.
    fn collect_members(&self, schema: &Value, instance: &Value, into: &mut BTreeSet<String>) {
        if let Some(target) = schema.get("$ref").and_then(Value::as_str) {
            self.collect_members(self.0.pointer(&target[1..]).unwrap(), instance, into);
        }
        into.extend(
            schema
                .get("properties")
                .and_then(Value::as_object)
                .into_iter()
                .flatten()
                .map(|(name, _)| name.clone()),
        );
        for part in schema.get("allOf").and_then(Value::as_array).into_iter().flatten() {
            self.collect_members(part, instance, into);
        }
        for part in schema.get("oneOf").and_then(Value::as_array).into_iter().flatten() {
            let target = part.get("$ref").and_then(Value::as_str);
            if target.is_some_and(|target| self.validate(&target[1..], instance).is_ok()) {
                self.collect_members(part, instance, into);
            }
        }
    }
}

fn walk(value: &Value, place: &str, visit: &mut dyn FnMut(&str, &Value)) {
    visit(place, value);
    match value {
        Value::Object(members) => {
            for (name, member) in members {
                let name = name.replace('~', "~0").replace('/', "~1");
                walk(member, &format!("{place}/{name}"), visit);
            }
        }
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                walk(item, &format!("{place}/{index}"), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}
