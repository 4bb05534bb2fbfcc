//! Where a server with a configuration file of somebody else's is about to run: what such a file has to name.

use std::path::PathBuf;

/// A folder and a port of one server. Its certificate and key are written before it starts.
#[derive(Debug)]
pub struct Place {
    /// The folder of everything that belongs to it; more files may be put there.
    pub folder: PathBuf,
    /// Where it listens on 127.0.0.1.
    pub port: u16,
}

impl Place {
    /// The folder of its content.
    pub fn storage(&self) -> PathBuf {
        self.folder.join("storage")
    }

    /// Its certificate.
    pub fn certificate(&self) -> PathBuf {
        self.folder.join("tls.crt")
    }

    /// Its private key.
    pub fn key(&self) -> PathBuf {
        self.folder.join("tls.key")
    }
}
