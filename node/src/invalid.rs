//! What is wrong with what a caller sent, field by field.

use std::fmt;

/// A field and what is wrong with it.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// The field's name, as the caller spells it; dotted inside nested values.
    pub field: String,
    /// What is wrong and what would be right.
    pub message: String,
}

/// At least one field that cannot be accepted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Invalid(pub Vec<FieldError>);

impl Invalid {
    /// One field with one error.
    pub fn field(field: impl Into<String>, message: impl fmt::Display) -> Self {
        let mut invalid = Self::default();
        invalid.add(field, message);
        invalid
    }

    /// Adds an error.
    pub fn add(&mut self, field: impl Into<String>, message: impl fmt::Display) {
        self.0.push(FieldError { field: field.into(), message: message.to_string() });
    }

    /// The value, or `None` with the error noted: so that a caller learns of all wrong fields at once.
    pub fn check<T, E: fmt::Display>(&mut self, field: &str, result: Result<T, E>) -> Option<T> {
        result.map_err(|error| self.add(field, error)).ok()
    }

    /// `Ok` when nothing was found wrong.
    pub fn into_result(self) -> Result<(), Self> {
        if self.0.is_empty() { Ok(()) } else { Err(self) }
    }
}

impl fmt::Display for Invalid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let errors: Vec<String> = self.0.iter().map(|error| format!("{}: {}", error.field, error.message)).collect();
        f.write_str(&errors.join("; "))
    }
}

impl std::error::Error for Invalid {}
