//! Reading driver messages.

use super::{DriverMessage, MessageError};

/// Reads one message. Unknown fields are ignored, `null` counts as not given.
///
/// # Errors
/// [`MessageError`] names the field.
pub fn parse_driver_message(text: &str) -> Result<DriverMessage, MessageError> {
    todo!("{text}")
}
