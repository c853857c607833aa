//! The kinds of object that a cluster owns, and which of them every API server knows.

use kube::core::{ApiResource, GroupVersionKind};
use shortener_crds::ShortenerCluster;

macro_rules! kinds {
    ($($(#[$doc:meta])* $kind:ident = $group:literal, $version:literal, $name:literal, $plural:literal, $everywhere:literal;)*) => {
        /// A kind of object that a cluster owns.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub enum Kind { $($(#[$doc])* $kind,)* }

        impl Kind {
            /// All of them.
            pub const ALL: &[Self] = &[$(Self::$kind,)*];

            const fn parts(self) -> (&'static str, &'static str, &'static str, &'static str, bool) {
                match self { $(Self::$kind => ($group, $version, $name, $plural, $everywhere),)* }
            }
        }
    };
}

kinds! {
    /// Who the nodes are.
    ServiceAccount = "", "v1", "ServiceAccount", "serviceaccounts", true;
    /// What the nodes may do.
    Role = "rbac.authorization.k8s.io", "v1", "Role", "roles", true;
    /// That they may.
    RoleBinding = "rbac.authorization.k8s.io", "v1", "RoleBinding", "rolebindings", true;
    /// Settings, and the dashboard.
    ConfigMap = "", "v1", "ConfigMap", "configmaps", true;
    /// One address for all nodes.
    Service = "", "v1", "Service", "services", true;
    /// The nodes.
    Deployment = "apps", "v1", "Deployment", "deployments", true;
    /// One node at a time.
    PodDisruptionBudget = "policy", "v1", "PodDisruptionBudget", "poddisruptionbudgets", true;
    /// Who may reach the nodes.
    NetworkPolicy = "networking.k8s.io", "v1", "NetworkPolicy", "networkpolicies", true;
    /// The autoscaler of `mode: hpa`.
    HorizontalPodAutoscaler = "autoscaling", "v2", "HorizontalPodAutoscaler", "horizontalpodautoscalers", true;
    /// Public hosts, through an ingress controller.
    Ingress = "networking.k8s.io", "v1", "Ingress", "ingresses", true;
    /// Public hosts, through a gateway.
    HttpRoute = "gateway.networking.k8s.io", "v1", "HTTPRoute", "httproutes", false;
    /// Where metrics are.
    PodMonitor = "monitoring.coreos.com", "v1", "PodMonitor", "podmonitors", false;
    /// The alerts.
    PrometheusRule = "monitoring.coreos.com", "v1", "PrometheusRule", "prometheusrules", false;
}

/// What a client has to know of `ShortenerCluster` to take one that may say anything.
pub fn shortener_clusters() -> ApiResource {
    ApiResource::erase::<ShortenerCluster>(&())
}

impl Kind {
    /// Its API group; empty for the core group.
    pub fn group(self) -> &'static str {
        self.parts().0
    }

    /// Its name, as objects carry it.
    pub fn kind(self) -> &'static str {
        self.parts().2
    }

    /// Its plural, as RBAC and URLs name it.
    pub fn plural(self) -> &'static str {
        self.parts().3
    }

    /// Whether every API server knows it. Others come with a CustomResourceDefinition, and may come later.
    pub fn is_everywhere(self) -> bool {
        self.parts().4
    }

    /// Whether a spec may do without it, so that one that is there may have to go. The rest goes with its owner.
    pub fn may_be_unwanted(self) -> bool {
        match self {
            Self::ServiceAccount
            | Self::Role
            | Self::RoleBinding
            | Self::Service
            | Self::Deployment
            | Self::PodDisruptionBudget => false,
            Self::ConfigMap
            | Self::NetworkPolicy
            | Self::HorizontalPodAutoscaler
            | Self::Ingress
            | Self::HttpRoute
            | Self::PodMonitor
            | Self::PrometheusRule => true,
        }
    }

    /// Group and version, as objects carry them.
    pub fn api_version(self) -> String {
        self.api_resource().api_version
    }

    /// What a client has to know of it.
    pub fn api_resource(self) -> ApiResource {
        let (group, version, kind, plural, _) = self.parts();
        ApiResource::from_gvk_with_plural(&GroupVersionKind::gvk(group, version, kind), plural)
    }

    /// The kind that an object says it is.
    pub fn of(api_version: &str, kind: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|known| known.kind() == kind && known.api_version() == api_version)
    }

    /// The name of the CustomResourceDefinition that brings it.
    pub fn definition(self) -> String {
        format!("{}.{}", self.plural(), self.group())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_is_found_by_what_its_objects_say() {
        for kind in Kind::ALL {
            assert_eq!(Kind::of(&kind.api_version(), kind.kind()), Some(*kind));
        }
        assert_eq!(Kind::of("v1", "Pod"), None);
        assert_eq!(Kind::Deployment.api_version(), "apps/v1");
        assert_eq!(Kind::HttpRoute.definition(), "httproutes.gateway.networking.k8s.io");
    }
}
