//! Checks the shape of a file against the schema of its types: unknown keys, missing keys, types, choices and ranges.
//!
//! Finds every fault, not the first, each with its place. The schema is the one generated from [`super::file`], so a key
//! added there is known here.

use serde_json::{Map, Value};
use toml::Spanned;
use toml::de::{DeTable, DeValue};

use super::document::{Document, Position, Problem, Severity};

/// The schema of the configuration file.
pub fn schema() -> Value {
    schemars::schema_for!(super::file::File).to_value()
}

/// Every fault of the file's shape.
pub(super) fn check(document: &Document<'_>) -> Vec<Problem> {
    let root = schema();
    let mut walk = Walk { document, defs: root["$defs"].as_object(), problems: Vec::new() };
    walk.table(document.root(), Position { line: 1, column: 1 }, &root, "the file");
    walk.problems
}

/// The known word nearest to a mistyped one, if any is near.
pub fn nearest<'a>(word: &str, known: impl IntoIterator<Item = &'a str>) -> Option<&'a str> {
    known
        .into_iter()
        .map(|k| (strsim::damerau_levenshtein(&word.to_lowercase(), &k.to_lowercase()), k))
        .min()
        .filter(|(distance, k)| *distance <= 1 + k.len().max(word.len()) / 4)
        .map(|(_, k)| k)
}

struct Walk<'w, 't> {
    document: &'w Document<'t>,
    defs: Option<&'w Map<String, Value>>,
    problems: Vec<Problem>,
}

impl<'w> Walk<'w, '_> {
    fn error(&mut self, at: Position, message: String) {
        self.problems.push(Problem { severity: Severity::Error, at: Some(at), message });
    }

    /// Follows `$ref` and the non-null branch of an optional value.
    fn resolve(&self, mut schema: &'w Value) -> &'w Value {
        loop {
            if let Some(name) = schema["$ref"].as_str().and_then(|r| r.rsplit('/').next()) {
                match self.defs.and_then(|d| d.get(name)) {
                    Some(target) => schema = target,
                    None => return schema,
                }
            } else if let Some(branch) = schema["anyOf"].as_array().and_then(|b| b.iter().find(|s| s["type"] != "null"))
            {
                schema = branch;
            } else {
                return schema;
            }
        }
    }

    fn table(&mut self, table: &DeTable<'_>, at: Position, schema: &'w Value, name: &str) {
        let properties = schema["properties"].as_object();
        let any = schema.get("additionalProperties").filter(|a| a.is_object());
        for (key, value) in table {
            let word: &str = key.get_ref().as_ref();
            if let Some(next) = properties.and_then(|p| p.get(word)).or(any) {
                let inner = if name == "the file" { word.to_owned() } else { format!("{name}.{word}") };
                self.value(value, next, &inner);
            } else {
                let at = self.document.position_of(&key.span());
                let known = properties.into_iter().flat_map(|p| p.keys().map(String::as_str));
                let message = unknown_key(word, name, known.collect());
                self.error(at, message);
            }
        }
        for required in schema["required"].as_array().into_iter().flatten().filter_map(Value::as_str) {
            if !table.contains_key(required) {
                self.error(at, format!("{}: key `{required}` is missing; add {required} = …", header(name)));
            }
        }
    }

    fn value(&mut self, value: &Spanned<DeValue<'_>>, schema: &'w Value, name: &str) {
        let schema = self.resolve(schema);
        let at = self.document.position_of(&value.span());
        if let Some(choices) = choices(schema) {
            let known = choices.join(", ");
            match value.get_ref().as_str() {
                Some(word) if choices.contains(&word) => {}
                Some(word) => {
                    let hint = nearest(word, choices.iter().copied())
                        .map_or(String::new(), |n| format!("did you mean \"{n}\"? "));
                    self.error(at, format!("{name}: \"{word}\" is not a choice; {hint}one of: {known}"));
                }
                None => self
                    .error(at, format!("{name}: {} where a word is expected; one of: {known}", kind(value.get_ref()))),
            }
            return;
        }
        let types = types(schema);
        let ok = match value.get_ref() {
            DeValue::String(_) => types.contains(&"string"),
            DeValue::Integer(_) => types.contains(&"integer") || types.contains(&"number"),
            DeValue::Float(_) => types.contains(&"number"),
            DeValue::Boolean(_) => types.contains(&"boolean"),
            DeValue::Array(_) => types.contains(&"array"),
            DeValue::Table(_) => types.contains(&"object"),
            DeValue::Datetime(_) => false,
        };
        if !ok {
            let expected = types.iter().find(|t| **t != "null").map_or("another type", |t| expected(t));
            let fix = expected_fix(name, &types);
            self.error(at, format!("{name}: {} where {expected} is expected{fix}", kind(value.get_ref())));
            return;
        }
        match value.get_ref() {
            DeValue::Table(table) => self.table(table, at, schema, name),
            DeValue::Array(items) => {
                self.length(at, items.len(), schema, name);
                for item in items.iter() {
                    self.value(item, &schema["items"], name);
                }
            }
            DeValue::Integer(i) => {
                self.range(at, i.as_str().replace('_', "").parse().unwrap_or(f64::NAN), schema, name)
            }
            DeValue::Float(f) => self.range(at, f.as_str().replace('_', "").parse().unwrap_or(f64::NAN), schema, name),
            _ => {}
        }
    }

    fn length(&mut self, at: Position, length: usize, schema: &Value, name: &str) {
        let (min, max) = (schema["minItems"].as_u64(), schema["maxItems"].as_u64());
        let length = length as u64;
        let bounds = match (min, max) {
            (Some(a), Some(b)) if a == b && length != a => {
                format!("{a} are expected{}", expected_fix(name, &types(schema)))
            }
            (Some(a), _) if length < a => format!("{a} are the fewest; add some"),
            (_, Some(b)) if length > b => format!("{b} are the most; leave some out"),
            _ => return,
        };
        self.error(at, format!("{name}: a list of {length} where {bounds}"));
    }

    fn range(&mut self, at: Position, value: f64, schema: &Value, name: &str) {
        let (min, max) = (schema["minimum"].as_f64(), schema["maximum"].as_f64());
        let inside = min.is_none_or(|m| value >= m) && max.is_none_or(|m| value <= m);
        if !inside || value.is_nan() {
            let bounds = match (min, max) {
                (Some(a), Some(b)) => format!("{a} to {b}"),
                (Some(a), None) => format!("{a} or more"),
                (None, Some(b)) => format!("{b} or less"),
                (None, None) => "a number".into(),
            };
            self.error(at, format!("{name}: {value} is out of range; give {bounds}"));
        }
    }
}

/// A table as its header is written.
fn header(table: &str) -> String {
    if matches!(table, "model" | "camera") { format!("[[{table}]]") } else { format!("[{table}]") }
}

fn unknown_key(word: &str, table: &str, known: Vec<&str>) -> String {
    let place = if table == "the file" { "at the top level".to_owned() } else { format!("in {}", header(table)) };
    match nearest(word, known.iter().copied()) {
        Some(near) => format!("unknown key `{word}` {place}; did you mean `{near}`?"),
        None => format!("unknown key `{word}` {place}; known: {}", known.join(", ")),
    }
}

/// The words of an enumeration, in order.
fn choices(schema: &Value) -> Option<Vec<&str>> {
    if let Some(words) = schema["enum"].as_array() {
        return Some(words.iter().filter_map(Value::as_str).collect());
    }
    let branches = schema["oneOf"].as_array()?;
    Some(
        branches
            .iter()
            .flat_map(|b| {
                b["const"]
                    .as_str()
                    .into_iter()
                    .chain(b["enum"].as_array().into_iter().flatten().filter_map(Value::as_str))
            })
            .collect(),
    )
}

fn types(schema: &Value) -> Vec<&str> {
    match &schema["type"] {
        Value::String(one) => vec![one.as_str()],
        Value::Array(many) => many.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn expected(name: &str) -> &'static str {
    match name {
        "string" => "text in quotes",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a table",
    }
}

fn expected_fix(name: &str, types: &[&str]) -> String {
    match types.first() {
        Some(&"array") if matches!(name, "model" | "camera") => format!("; write [[{name}]], with two brackets"),
        Some(&"array") if name == "camera.zones" => "; write zones = [[x0, y0, x1, y1], …]".into(),
        Some(&"object") => format!("; write [{name}] and its keys below"),
        _ => String::new(),
    }
}

fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}
