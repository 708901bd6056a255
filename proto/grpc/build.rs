//! Generates the services; their messages are muster-proto's.

use prost::Message as _;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let files = [
        "muster/operator/v1/instruction.proto",
        "muster/operator/v1/fleet.proto",
        "muster/operator/v1/policy.proto",
        "muster/relay/v1/relay.proto",
    ];
    for file in files {
        println!("cargo::rerun-if-changed=../{file}");
    }
    let descriptors = protox::compile(files, [".."])?;
    let out_dir = std::path::PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("descriptors.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure()
        .extern_path(".muster.common.v1", "::muster_proto::common::v1")
        .extern_path(".muster.session.v1", "::muster_proto::session::v1")
        .extern_path(".muster.operator.v1", "::muster_proto::operator::v1")
        .extern_path(".muster.relay.v1", "::muster_proto::relay::v1")
        .compile_fds(descriptors)?;
    Ok(())
}
