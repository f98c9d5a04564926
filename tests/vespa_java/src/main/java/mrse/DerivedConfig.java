package mrse;

import ai.vespa.modelintegration.evaluator.config.OnnxEvaluatorConfig;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.config.ConfigInstance;
import com.yahoo.embedding.huggingface.HuggingFaceEmbedderConfig;
import com.yahoo.jdisc.http.ConnectorConfig;
import com.yahoo.vespa.config.ConfigPayload;
import com.yahoo.vespa.config.content.StorDistributionConfig;
import com.yahoo.vespa.config.search.AttributesConfig;
import com.yahoo.vespa.config.search.RankProfilesConfig;
import com.yahoo.vespa.config.search.core.OnnxModelsConfig;
import com.yahoo.vespa.configdefinition.IlscriptsConfig;
import com.yahoo.vespa.model.VespaModel;
import com.yahoo.vespa.model.container.component.HuggingFaceEmbedder;
import com.yahoo.vespa.model.search.DocumentDatabase;

import java.util.List;

/** The config that Vespa derives from a package for its content nodes and containers, as JSON: {config name: {config id: content}}. */
class DerivedConfig {

    private static final List<Class<? extends ConfigInstance>> ofSchema =
            List.of(AttributesConfig.class, RankProfilesConfig.class, OnnxModelsConfig.class, IlscriptsConfig.class);

    static ObjectNode of(VespaModel model) throws Exception {
        ObjectNode all = Judge.json.createObjectNode();
        for (var cluster : model.getContentClusters().values()) {
            put(all, model, StorDistributionConfig.class, cluster.getConfigId());
            for (DocumentDatabase db : cluster.getSearch().getSearchCluster().getDocumentDbs())
                for (var type : ofSchema) put(all, model, type, db.getConfigId());
        }
        for (var cluster : model.getContainerClusters().values()) {
            for (var component : cluster.getAllComponents())
                if (component instanceof HuggingFaceEmbedder) {
                    put(all, model, HuggingFaceEmbedderConfig.class, component.getConfigId());
                    put(all, model, OnnxEvaluatorConfig.class, component.getConfigId());
                }
            if (cluster.getHttp() != null)
                for (var server : cluster.getHttp().getHttpServer().orElseThrow().getConnectorFactories())
                    put(all, model, ConnectorConfig.class, server.getConfigId());
        }
        return all;
    }

    private static void put(ObjectNode all, VespaModel model, Class<? extends ConfigInstance> type, String id) throws Exception {
        String content = ConfigPayload.fromInstance(model.getConfig(type, id)).toString(true);
        all.withObject("/" + type.getSimpleName()).set(id, Judge.json.readTree(content));
    }
}
