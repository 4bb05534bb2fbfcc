use mintmark_hack::{
    cluster::Cluster,
    controller::{self, Controller, Ports, SIGNING_SECRET},
    pki::TestCa,
    svid::Bundle,
};

#[tokio::test]
async fn the_controller_runs_with_its_own_rights_and_survives_a_crash() {
    let cluster = Cluster::shared().await.unwrap();
    let installation = controller::install(cluster, "controller-run").await.unwrap();
    let ca = TestCa::new("signer").unwrap();
    controller::signing_secret(cluster, "controller-run", ca.key_and_certificate())
        .await
        .unwrap();
    let ports = Ports::free().unwrap();
    let issuer = ports.issuer_url();
    let flags = [
        "--spiffe-trust-domain=td.example".to_owned(),
        format!("--spiffe-issuer={issuer}"),
        format!("--spiffe-secret-name={SIGNING_SECRET}"),
    ];
    let controller = Controller::start(&installation, ports, &flags.each_ref().map(String::as_str)).unwrap();
    controller.wait_ready().await.unwrap();
    controller.kill().unwrap();
    controller.resume().unwrap();
    controller.wait_ready().await.unwrap();

    let source = format!("{issuer}/spiffe/bundle.json");
    let bundle = Bundle {
        source: &source,
        trust_domain: "td.example",
    }
    .parse()
    .await
    .unwrap();
    assert_eq!(bundle.x509_authorities, ["CN=signer"]);
    assert_eq!(bundle.jwt_key_ids.len(), 1);
    assert!(!controller.log_lines().unwrap().is_empty());
    assert_eq!(controller.stop().unwrap().code(), Some(0));
}
