//! The lists that Flux excludes by default, one pattern a line.

pub(super) const VERSION_CONTROL: &str = "\
.git/
.gitignore
.gitmodules
.gitattributes
";

pub(super) const EXTENSIONS: &str = "\
*.jpg
*.jpeg
*.gif
*.png
*.wmv
*.flv
*.tar.gz
*.zip
";

pub(super) const CONTINUOUS_INTEGRATION: &str = "\
.github/
.circleci/
.travis.yml
.gitlab-ci.yml
appveyor.yml
.drone.yml
cloudbuild.yaml
codeship-services.yml
codeship-steps.yml
";

pub(super) const EXTRA: &str = "\
**/.goreleaser.yml
**/.sops.yaml
**/.flux.yaml
";
