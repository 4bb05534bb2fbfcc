//! Flags of Flux's controllers that mean nothing here. A manifest written for them starts this program too: they are accepted
//! with one warning, unless they ask for something that would then silently be missing, which ends the process instead.

use clap::Args;

use super::FlagError;

/// Gates of source-controller that change how it works inside and not what it does: on or off is the same here.
const HARMLESS_GATES: [&str; 4] = [
    "CacheSecretsAndConfigMaps",
    "DisableConfigWatchers",
    "GitForcePushBranch",
    "OptimizedGitClones",
];

/// Accepted for Flux's sake. Hidden from the help, named in `docs/configuration.md`.
#[derive(Debug, Clone, Default, Args)]
pub struct FluxFlags {
    #[arg(long, hide = true, value_name = "GATE=BOOL,…", value_delimiter = ',')]
    pub feature_gates: Vec<String>,
    #[arg(long, hide = true)]
    pub artifact_digest_algo: Option<String>,
    #[arg(long, hide = true)]
    pub token_cache_max_size: Option<String>,
    #[arg(long, hide = true)]
    pub token_cache_max_duration: Option<String>,
    #[arg(long, hide = true)]
    pub watch_configs_label_selector: Option<String>,
    #[arg(long, hide = true)]
    pub helm_cache_max_size: Option<String>,
    #[arg(long, hide = true)]
    pub helm_cache_ttl: Option<String>,
    #[arg(long, hide = true)]
    pub helm_cache_purge_interval: Option<String>,
    #[arg(long, hide = true)]
    pub helm_index_max_size: Option<String>,
    #[arg(long, hide = true)]
    pub helm_chart_max_size: Option<String>,
    #[arg(long, hide = true)]
    pub helm_chart_file_max_size: Option<String>,
    #[arg(long, hide = true)]
    pub ssh_kex_algos: Option<String>,
    #[arg(long, hide = true)]
    pub ssh_hostkey_algos: Option<String>,
    #[arg(long, hide = true)]
    pub gc_interval: Option<String>,
    #[arg(long, hide = true)]
    pub storage_value_log_file_size: Option<String>,
}

impl FluxFlags {
    /// The given flags, none of which does anything; an error if one asks for what this program lacks.
    pub fn check(&self) -> Result<Vec<&'static str>, FlagError> {
        for gate in &self.feature_gates {
            check_gate(gate.trim()).map_err(|problem| FlagError::new("feature-gates", problem))?;
        }
        let gates = (!self.feature_gates.is_empty()).then(String::new);
        let all = [
            ("--feature-gates", &gates),
            ("--artifact-digest-algo", &self.artifact_digest_algo),
            ("--token-cache-max-size", &self.token_cache_max_size),
            ("--token-cache-max-duration", &self.token_cache_max_duration),
            ("--watch-configs-label-selector", &self.watch_configs_label_selector),
            ("--helm-cache-max-size", &self.helm_cache_max_size),
            ("--helm-cache-ttl", &self.helm_cache_ttl),
            ("--helm-cache-purge-interval", &self.helm_cache_purge_interval),
            ("--helm-index-max-size", &self.helm_index_max_size),
            ("--helm-chart-max-size", &self.helm_chart_max_size),
            ("--helm-chart-file-max-size", &self.helm_chart_file_max_size),
            ("--ssh-kex-algos", &self.ssh_kex_algos),
            ("--ssh-hostkey-algos", &self.ssh_hostkey_algos),
            ("--gc-interval", &self.gc_interval),
            ("--storage-value-log-file-size", &self.storage_value_log_file_size),
        ];
        let given = all.into_iter().filter(|(_, value)| value.is_some());
        Ok(given.map(|(name, _)| name).collect())
    }

    /// Says once which flags do nothing.
    pub fn warn(&self) -> Result<(), FlagError> {
        let given = self.check()?;
        if !given.is_empty() {
            tracing::warn!(flags = given.join(" "), "these flags of Flux have no effect here");
        }
        Ok(())
    }
}

fn check_gate(gate: &str) -> Result<(), String> {
    if gate.is_empty() {
        return Ok(());
    }
    let malformed = || format!("{gate:?} is not <gate>=true or <gate>=false");
    let (name, value) = gate.split_once('=').ok_or_else(malformed)?;
    match value.trim() {
        "false" => Ok(()),
        "true" if HARMLESS_GATES.contains(&name.trim()) => Ok(()),
        "true" => Err(format!("{} is not supported", name.trim())),
        _ => Err(malformed()),
    }
}

/// A clearer line for a mistake that is a flag of Flux which cannot be ignored: `line` is the parser's.
pub(super) fn unsupported(line: &str) -> Option<String> {
    let flag = line.split('\'').nth(1)?;
    let name = flag.split('=').next()?.strip_prefix("--")?;
    (name.starts_with("authorized-") && name.ends_with("-spiffe-id"))
        .then(|| format!("--{name}: mTLS between controllers is not supported"))
}

#[cfg(test)]
mod tests {
    use clap::{CommandFactory, Parser};
    use rstest::rstest;

    use super::*;

    #[derive(Debug, Parser)]
    struct Line {
        #[command(flatten)]
        flags: FluxFlags,
    }

    fn parse(line: &str) -> FluxFlags {
        Line::parse_from(std::iter::once("run").chain(line.split_whitespace())).flags
    }

    #[test]
    fn every_flag_is_accepted_and_told() {
        let command = Line::command();
        let names = command.get_arguments().filter_map(clap::Arg::get_long);
        let names: Vec<_> = names.filter(|name| *name != "help").collect();
        assert!(names.len() > 10);
        for name in names {
            let value = if name == "feature-gates" {
                "OptimizedGitClones=true"
            } else {
                "1"
            };
            let told = parse(&format!("--{name}={value}")).check().unwrap();
            assert_eq!(told, [format!("--{name}")]);
        }
        assert!(parse("").check().unwrap().is_empty());
    }

    #[rstest]
    #[case("CacheSecretsAndConfigMaps=true,ObjectLevelWorkloadIdentity=false", None)]
    #[case(
        "OptimizedGitClones=false,ObjectLevelWorkloadIdentity=true",
        Some("ObjectLevelWorkloadIdentity is not supported")
    )]
    #[case("Unheard=true", Some("Unheard is not supported"))]
    #[case("Unheard=maybe", Some("is not <gate>=true or <gate>=false"))]
    #[case("Unheard", Some("is not <gate>=true or <gate>=false"))]
    fn a_gate_may_not_ask_for_what_is_missing(#[case] gates: &str, #[case] problem: Option<&str>) {
        let checked = parse(&format!("--feature-gates={gates}")).check();
        match problem {
            None => assert_eq!(checked.unwrap(), ["--feature-gates"]),
            Some(problem) => {
                let error = checked.unwrap_err().to_string();
                assert!(
                    error.starts_with("--feature-gates: ") && error.ends_with(problem),
                    "{error}"
                );
            }
        }
    }

    #[test]
    fn mutual_tls_between_controllers_is_refused_by_name() {
        let error = Line::try_parse_from(["run", "--authorized-kustomize-spiffe-id=spiffe://a/b"]).unwrap_err();
        let text = error.to_string();
        let line = unsupported(text.lines().next().unwrap()).unwrap();
        assert_eq!(
            line,
            "--authorized-kustomize-spiffe-id: mTLS between controllers is not supported"
        );
        assert_eq!(unsupported("unexpected argument '--authorized' found"), None);
    }
}
