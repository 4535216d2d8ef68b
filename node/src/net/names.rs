//! The names that one swarm's protocols have. Every name carries a digest of the swarm's name, so
//! that two swarms on one LAN can't even agree on a protocol to talk.

use libp2p::StreamProtocol;

/// The names of one swarm.
#[derive(Clone, Debug)]
pub(crate) struct Names {
    prefix: String,
}

impl Names {
    /// Of the swarm that people call `swarm`.
    pub(crate) fn new(swarm: &str) -> Self {
        let digest = blake3::hash(swarm.as_bytes()).to_hex();
        Self { prefix: format!("/starling/{}", &digest[..DIGEST_DIGITS]) }
    }

    /// Directed market messages.
    pub(crate) fn market(&self) -> StreamProtocol {
        self.protocol("market/1")
    }

    /// Activations.
    pub(crate) fn tensor(&self) -> StreamProtocol {
        self.protocol("tensor/1")
    }

    /// Weights and graph slices.
    pub(crate) fn blob(&self) -> StreamProtocol {
        self.protocol("blob/1")
    }

    /// The gossip protocol's prefix; libp2p appends a version.
    pub(crate) fn gossip(&self) -> String {
        format!("{}/gossip", self.prefix)
    }

    /// The gossip topic of adverts.
    pub(crate) fn topic(&self) -> String {
        format!("{}/adverts/1", self.prefix)
    }

    /// What nodes tell each other to be, first thing on a connection.
    pub(crate) fn identify(&self) -> String {
        format!("{}/1", self.prefix)
    }

    fn protocol(&self, name: &str) -> StreamProtocol {
        StreamProtocol::try_from_owned(format!("{}/{name}", self.prefix))
            .expect("it starts with a slash")
    }
}

/// Enough for swarms not to meet by chance; it is no secret and guards against no attacker.
const DIGEST_DIGITS: usize = 8;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_follow_the_swarm() {
        let (home, again, other) = (Names::new("home"), Names::new("home"), Names::new("other"));
        assert_eq!(home.market(), again.market());
        assert_ne!(home.market(), other.market());
        assert_ne!(home.topic(), other.topic());
        assert_ne!(home.identify(), other.identify());
        assert_eq!(home.tensor().as_ref().len(), "/starling/01234567/tensor/1".len());
    }
}
