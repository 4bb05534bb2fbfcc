# The image that config/manager runs. Build: docker build -t mintmark:0.1.0 .
FROM rust:1.95-slim-bookworm AS build
WORKDIR /src
COPY . .
RUN cargo build --release --locked --package mintmark

FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=build /src/target/release/mintmark /mintmark
USER 65532:65532
ENTRYPOINT ["/mintmark"]
