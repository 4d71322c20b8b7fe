//! The per-install bearer token of the loopback API.

use crate::files;
use anyhow::Context as _;
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rand_core::{OsRng, RngCore as _};
use std::fmt;
use std::path::Path;
use subtle::ConstantTimeEq as _;

const FILE: &str = "ui-token";

/// 32 random bytes as base64url. Its `Debug` shows nothing.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl Token {
    /// Makes a new token.
    pub fn generate() -> Self {
        let mut bytes = [0; 32];
        OsRng.fill_bytes(&mut bytes);
        Self(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// The install's token, made and stored with mode 0600 at first use; a damaged file is replaced.
    pub fn load_or_create(state_dir: &Path) -> anyhow::Result<Self> {
        let path = state_dir.join(FILE);
        if let Some(token) = std::fs::read_to_string(&path).ok().and_then(|text| Self::parse(text.trim())) {
            return Ok(token);
        }
        let token = Self::generate();
        files::replace_private(&path, token.0.as_bytes()).with_context(|| {
            format!("cannot write {}; check that the directory exists and is writable", path.display())
        })?;
        Ok(token)
    }

    fn parse(text: &str) -> Option<Self> {
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        (bytes.len() == 32).then(|| Self(text.into()))
    }

    /// For the link that opens the UI.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Compares in constant time.
    pub fn matches(&self, offered: &str) -> bool {
        self.0.as_bytes().ct_eq(offered.as_bytes()).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn is_kept_private_and_repaired() {
        let dir = tempfile::tempdir().unwrap();
        let token = Token::load_or_create(dir.path()).unwrap();
        assert_eq!(Token::load_or_create(dir.path()).unwrap(), token);
        assert_eq!(format!("{token:?}"), "Token(…)");
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            let mode = std::fs::metadata(dir.path().join(FILE)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        }
        std::fs::write(dir.path().join(FILE), "short").unwrap();
        let repaired = Token::load_or_create(dir.path()).unwrap();
        assert!(
            repaired != token && repaired.matches(repaired.as_str()) && !repaired.matches(token.as_str())
        );
    }
}
