package mrse;

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import com.yahoo.component.chain.Chain;
import com.yahoo.container.QrSearchersConfig;
import com.yahoo.language.simple.SimpleLinguistics;
import com.yahoo.prelude.IndexFacts;
import com.yahoo.prelude.IndexModel;
import com.yahoo.prelude.searcher.ValidateSortingSearcher;
import com.yahoo.search.Query;
import com.yahoo.search.Result;
import com.yahoo.search.Searcher;
import com.yahoo.search.config.ClusterConfig;
import com.yahoo.search.config.IndexInfoConfig;
import com.yahoo.search.config.SchemaInfoConfig;
import com.yahoo.search.grouping.GroupingValidator;
import com.yahoo.search.schema.SchemaInfo;
import com.yahoo.search.searchchain.Execution;
import com.yahoo.search.searchers.QueryValidator;
import com.yahoo.search.searchers.ValidateNearestNeighborSearcher;
import com.yahoo.search.yql.MinimalQueryInserter;
import com.yahoo.vespa.config.search.AttributesConfig;
import com.yahoo.vespa.model.VespaModel;
import com.yahoo.yolean.Exceptions;

import java.net.URLEncoder;
import java.nio.charset.StandardCharsets;

/** Parses and validates YQL as the package's container would, up to the point where it would ask the content nodes. */
class YqlCheck {

    private static final Searcher nobody = new Searcher() {
        @Override public Result search(Query query, Execution execution) { return new Result(query); }
    };
    private final SchemaInfo schemas;
    private final IndexFacts indexes;
    private final Chain<Searcher> chain;

    YqlCheck(VespaModel model) {
        String container = model.getContainerClusters().values().stream().filter(c -> c.getSearch() != null).findFirst().orElseThrow().getConfigId();
        var content = model.getContentClusters().values().iterator().next();
        var attributes = model.getConfig(AttributesConfig.class, RankFunctions.itemSchema(model));
        var cluster = new ClusterConfig.Builder().clusterName(content.getName()).build();
        var searchers = model.getConfig(QrSearchersConfig.class, container);
        schemas = new SchemaInfo(model.getConfig(SchemaInfoConfig.class, container), searchers);
        indexes = new IndexFacts(new IndexModel(model.getConfig(IndexInfoConfig.class, container), searchers));
        chain = new Chain<>(new MinimalQueryInserter(), new QueryValidator(), new ValidateNearestNeighborSearcher(attributes),
                            new GroupingValidator(cluster, attributes), new ValidateSortingSearcher(cluster, attributes), nobody);
    }

    /** {"yql", "parameters": {name: text}} → {"tree"} or {"error"} */
    ObjectNode parse(JsonNode entry) {
        ObjectNode answer = Judge.json.createObjectNode();
        StringBuilder request = new StringBuilder("?yql=").append(encode(entry.get("yql").asText()));
        entry.path("parameters").properties().forEach(p -> request.append('&').append(encode(p.getKey())).append('=').append(encode(p.getValue().asText())));
        try {
            Query query = new Query.Builder().setSchemaInfo(schemas).setRequest(request.toString()).build();
            var context = Execution.Context.createContextStub(null, indexes, schemas, new SimpleLinguistics());
            Result result = new Execution(chain, context).search(query);
            if (result.hits().getError() != null) return answer.put("error", result.hits().getError().toString());
            return answer.put("tree", query.getModel().getQueryTree().toString());
        } catch (Exception e) {
            return answer.put("error", Exceptions.toMessageString(e));
        }
    }

    private static String encode(String text) { return URLEncoder.encode(text, StandardCharsets.UTF_8); }
}
