//! What the swarm is made of, and with which limits.

use std::{convert::Infallible, time::Duration};

use libp2p::{
    PeerId, StreamProtocol, Swarm, SwarmBuilder, Transport as _, connection_limits,
    core::upgrade,
    gossipsub, identify,
    identity::Keypair,
    mdns, noise, ping, request_response,
    swarm::{NetworkBehaviour, behaviour::toggle::Toggle},
    tcp, yamux,
};

use super::NetError;
use crate::net::{book::Book, market::MarketCodec, names::Names};

#[derive(NetworkBehaviour)]
pub(super) struct Behaviour {
    limits: connection_limits::Behaviour,
    pub(super) book: Book,
    identify: identify::Behaviour,
    ping: ping::Behaviour,
    pub(super) gossip: gossipsub::Behaviour,
    pub(super) market: request_response::Behaviour<MarketCodec>,
    pub(super) streams: libp2p_stream::Behaviour,
    pub(super) mdns: Toggle<mdns::tokio::Behaviour>,
}

/// A swarm that neither listens nor dials yet.
pub(super) fn swarm(
    keypair: Keypair,
    names: &Names,
    mdns: bool,
) -> Result<Swarm<Behaviour>, NetError> {
    let setup = |error: &dyn std::error::Error| NetError::Setup(error.to_string());
    let behaviour = behaviour(&keypair, names, mdns)?;
    let swarm = SwarmBuilder::with_existing_identity(keypair)
        .with_tokio()
        .with_quic_config(|mut config| {
            // The defaults, 10 and 15 MB, let two stalled readers starve the whole connection.
            config.max_stream_data = 4 << 20;
            config.max_connection_data = 64 << 20;
            config.max_concurrent_stream_limit = STREAMS_MAX;
            // A process that stood still finds its own timers run out before it reads what came.
            config.max_idle_timeout = IDLE.as_millis() as u32;
            config
        })
        .with_other_transport(|keypair| {
            let noise = noise::Config::new(keypair)?;
            let tcp = tcp::tokio::Transport::new(tcp::Config::new().nodelay(true));
            let transport = tcp.map(|stream, _| {
                hold_little_back(&stream.0);
                stream
            });
            let upgraded = transport.upgrade(upgrade::Version::V1Lazy).authenticate(noise);
            Ok(upgraded.multiplex(yamux::Config::default()))
        })
        .map_err(|error| setup(&error))?
        .with_behaviour(|_| behaviour)
        .map_err(|error: Infallible| setup(&error))?
        .with_swarm_config(|config| {
            config
                .with_idle_connection_timeout(IDLE)
                .with_max_negotiating_inbound_streams(STREAMS_MAX as usize)
                // A message goes out with its stream's name, and is answered in one round trip.
                .with_substream_upgrade_protocol_override(upgrade::Version::V1Lazy)
        })
        .with_connection_timeout(Duration::from_secs(5))
        .build();
    Ok(swarm)
}

/// Streams share a connection fairly up to where the system buffers it. There tensors of megabytes
/// would wait before a market message, which has half a second.
#[cfg(any(target_os = "linux", target_os = "android"))]
fn hold_little_back(stream: &tokio::net::TcpStream) {
    let socket = socket2::SockRef::from(stream);
    if let Err(error) = socket.set_tcp_notsent_lowat(UNSENT_MAX) {
        tracing::debug!(%error, "what waits to be sent is not limited");
    }
}

#[cfg(not(any(target_os = "linux", target_os = "android")))]
fn hold_little_back(_: &tokio::net::TcpStream) {}

fn behaviour(keypair: &Keypair, names: &Names, mdns: bool) -> Result<Behaviour, NetError> {
    let me = keypair.public().to_peer_id();
    let agent = concat!("starling/", env!("CARGO_PKG_VERSION")).to_owned();
    let identify = identify::Config::new(names.identify(), keypair.public())
        .with_agent_version(agent)
        .with_push_listen_addr_updates(true);
    // Each wakes both machines several times, and there is one for every two of a flock. Sessions
    // watch their providers more closely.
    let ping = ping::Config::new()
        .with_interval(Duration::from_secs(4))
        .with_timeout(Duration::from_secs(5));
    Ok(Behaviour {
        limits: connection_limits::Behaviour::new(connection_limits()),
        book: Book::default(),
        identify: identify::Behaviour::new(identify),
        ping: ping::Behaviour::new(ping),
        gossip: gossip(keypair, names).map_err(NetError::Setup)?,
        market: market(names.market()),
        streams: libp2p_stream::Behaviour::new(),
        mdns: Toggle::from(if mdns { local_discovery(me) } else { None }),
    })
}

fn connection_limits() -> connection_limits::ConnectionLimits {
    connection_limits::ConnectionLimits::default()
        .with_max_pending_incoming(Some(64))
        .with_max_pending_outgoing(Some(256))
        .with_max_established(Some(1024))
        // Two are normal: both sides may dial at once, over TCP and QUIC.
        .with_max_established_per_peer(Some(4))
}

fn gossip(keypair: &Keypair, names: &Names) -> Result<gossipsub::Behaviour, String> {
    let config = gossipsub::ConfigBuilder::default()
        .protocol_id_prefix(names.gossip())
        .validation_mode(gossipsub::ValidationMode::Strict)
        .validate_messages()
        .max_transmit_size(GOSSIP_BYTES_MAX)
        .heartbeat_initial_delay(Duration::from_millis(100))
        .heartbeat_interval(Duration::from_secs(1))
        // Small flocks have no mesh to speak of: one's own adverts go to everybody known.
        .flood_publish(true)
        .connection_handler_queue_len(256)
        .build()
        .map_err(|error| error.to_string())?;
    let author = gossipsub::MessageAuthenticity::Signed(keypair.clone());
    gossipsub::Behaviour::new(author, config).map_err(str::to_owned)
}

fn market(protocol: StreamProtocol) -> request_response::Behaviour<MarketCodec> {
    let config = request_response::Config::default()
        .with_request_timeout(Duration::from_secs(5))
        .with_max_concurrent_streams(MARKET_STREAMS_MAX);
    request_response::Behaviour::new([(protocol, request_response::ProtocolSupport::Full)], config)
}

/// A machine without a network that can multicast is no reason not to start.
fn local_discovery(me: PeerId) -> Option<mdns::tokio::Behaviour> {
    let config = mdns::Config {
        query_interval: Duration::from_secs(30),
        // IPv6 interfaces trip it up (rust-libp2p 5783).
        enable_ipv6: false,
        ..mdns::Config::default()
    };
    mdns::tokio::Behaviour::new(config, me)
        .inspect_err(|error| tracing::warn!(%error, "can't look for others on this network"))
        .ok()
}

/// How long a connection may be idle. Pings decide when one ends, over TCP and QUIC alike, and the
/// limits how many there are.
const IDLE: Duration = Duration::from_secs(24 * 3600);
/// 16 KiB of advert, and room for signature, key, topic and framing.
const GOSSIP_BYTES_MAX: usize = 20 * 1024;
/// Requests in both directions at a time on one connection: four times the pieces of one session.
const MARKET_STREAMS_MAX: usize = 256;
/// Bytes that wait in the system to be sent: 25 ms of a 20 Mbit/s link.
#[cfg(any(target_os = "linux", target_os = "android"))]
const UNSENT_MAX: u32 = 64 * 1024;
/// Inbound streams of all protocols at a time on one connection.
const STREAMS_MAX: u32 = 512;
