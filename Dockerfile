# The image that config/manager runs. Build: docker build -t mintmark:0.1.0 .
FROM rust:1.95-slim-bookworm AS build
# For the allocator, which is built from its C sources.
RUN apt-get update && apt-get install --yes --no-install-recommends make && rm -rf /var/lib/apt/lists/*
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package mintmark

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/mintmark /mintmark
USER 65532:65532
ENTRYPOINT ["/mintmark"]
