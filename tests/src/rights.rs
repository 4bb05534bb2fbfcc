//! The opt-in rights of `config/`, given to the controller of one environment.

use anyhow::Result;
use mintmark_hack::{
    manifests::{self, Placement},
    workspace,
};

use crate::env::Env;

impl Env {
    /// Applies a folder of `config/` beside what the controller was installed with.
    pub async fn grant(&self, folder: &str) -> Result<()> {
        let objects = manifests::load(&workspace::root().join("config").join(folder))?;
        let objects = Placement::new(&self.installation.namespace).place(objects)?;
        manifests::apply(&self.client, objects).await
    }
}
