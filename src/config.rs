//! Settings: file, environment and flags into one checked [`Config`].
