//! Prints the settings: for people, for the README, and as a file to start from.

use super::load::Loaded;
use super::settings::{SETTINGS, Setting};
use super::value::{Entry, Value};
use std::fmt::Write as _;

/// Shape of `config show`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum ShowFormat {
    /// Columns: setting, value, unit, default, source.
    Text,
    /// The README's table: the defaults, not this node's values.
    Markdown,
    /// A `dispatchd.toml` with this node's values, each with its meaning.
    Toml,
}

impl Loaded {
    /// All settings in `format`, ending with a line break.
    pub fn show(&self, format: ShowFormat) -> String {
        match format {
            ShowFormat::Text => show_text(&self.entries),
            ShowFormat::Markdown => settings_table_markdown(),
            ShowFormat::Toml => show_toml(&self.entries),
        }
    }
}

/// The table of settings as the README has it between its `settings` markers.
pub fn settings_table_markdown() -> String {
    let mut out = String::from("| setting | default | unit | allowed | meaning |\n|---|---|---|---|---|\n");
    for setting in SETTINGS {
        let Setting {
            name, unit, kind, doc, ..
        } = setting;
        let default = match setting.preset {
            super::Preset::Text(text) => format!("`{text}`"),
            super::Preset::HostName => setting.default_text().to_owned(),
        };
        push_line(
            &mut out,
            format_args!("| `{name}` | {default} | {unit} | {} | {doc} |", kind.allowed()),
        );
    }
    out
}

fn show_text(entries: &[Entry]) -> String {
    let header = ["SETTING", "VALUE", "UNIT", "DEFAULT", "SOURCE"].map(str::to_owned);
    let row = |entry: &Entry| {
        let setting = entry.setting;
        [
            setting.name.to_owned(),
            entry.value.to_string(),
            setting.unit.to_owned(),
            setting.default_text().to_owned(),
            entry.origin.to_string(),
        ]
    };
    let rows: Vec<[String; 5]> = std::iter::once(header).chain(entries.iter().map(row)).collect();
    let width = |column: usize| rows.iter().map(|row| row[column].chars().count()).max().unwrap_or(0);
    let widths: [usize; 4] = std::array::from_fn(width);
    let mut out = String::new();
    for [name, value, unit, default, source] in &rows {
        let [w0, w1, w2, w3] = widths;
        push_line(
            &mut out,
            format_args!("{name:w0$}  {value:w1$}  {unit:w2$}  {default:w3$}  {source}"),
        );
    }
    out
}

fn show_toml(entries: &[Entry]) -> String {
    let mut out = String::new();
    for Entry { setting, value, .. } in entries {
        let unit = if setting.unit.is_empty() {
            String::new()
        } else {
            format!(" Unit: {}.", setting.unit)
        };
        push_line(&mut out, format_args!("# {}{unit}", setting.doc));
        push_line(&mut out, format_args!("# Allowed: {}.", setting.kind.allowed()));
        let value = match value {
            Value::Integer(number) => toml::Value::Integer(i64::try_from(*number).expect("ranges end below 2^63")),
            Value::Switch(on) => toml::Value::Boolean(*on),
            Value::Text(text) => toml::Value::String(text.clone()),
        };
        push_line(&mut out, format_args!("{} = {value}\n", setting.name));
    }
    out
}

fn push_line(out: &mut String, line: std::fmt::Arguments<'_>) {
    writeln!(out, "{line}").expect("a String takes everything");
}
