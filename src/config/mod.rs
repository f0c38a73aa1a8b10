//! Settings: file, environment and flags into one checked [`Config`].
//!
//! Owns the one table of settings ([`SETTINGS`]): parsing, errors, `config show` and the README's table all come
//! from it. Later sources win: defaults, then `dispatchd.toml`, then `DISPATCHD_<KEY>`, then flags. Must never guess:
//! an unknown key or a value out of range is an error that names the key, the value, where it came from, and what is
//! allowed; all errors are reported at once.
#![forbid(unsafe_code)]

mod error;
mod load;
mod settings;
mod show;
mod value;

pub use error::{ConfigError, ConfigErrors};
pub use load::{ENVIRONMENT_PREFIX, FILE_DEFAULT, Loaded, Sources};
pub use settings::{Config, LogFormat, LogLevel, RedisMode, SETTINGS, Setting};
pub use show::{ShowFormat, settings_table_markdown};
pub use value::{Entry, Kind, Origin, Preset, Value};
